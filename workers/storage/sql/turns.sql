-- coalesce(state, '') where a turn is named by its id: a bare comparison lets the planner walk the small index of all
-- running turns instead of the primary key, at a thousand rows a claim on a busy day.

-- name: open_turn
-- Accept a turn that stands alone: its hidden session, its row and its messages, once.
WITH session AS (
    INSERT INTO sessions (id, user_id, personality_id, hidden)
    VALUES (%(session_id)s, %(user_id)s, %(personality_id)s, true)
    ON CONFLICT (id) DO NOTHING
), turn AS (
    INSERT INTO turns (id, user_id, session_id, shard, state, model, personality_id, fingerprint, arrival, bundle,
        ignored_messages)
    VALUES (%(turn_id)s, %(user_id)s, %(session_id)s, %(shard)s, %(state)s, %(model)s, %(personality_id)s,
        %(fingerprint)s, %(arrival)b, %(bundle)b, %(ignored_messages)s)
    ON CONFLICT DO NOTHING -- of any kind: asked for twice at once, it may be its own rival for its session
    RETURNING id, created_at
), said AS (
    INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
    SELECT said.id, %(session_id)s, %(turn_id)s, said.role, said.content, said.metadata
    FROM unnest(%(message_ids)s::uuid[], %(roles)s::text[], %(contents)s::jsonb[], %(metadata)s::jsonb[])
        WITH ORDINALITY AS said (id, role, content, metadata, position), turn
    ORDER BY said.position
    ON CONFLICT (id) DO NOTHING
)
SELECT extract(epoch FROM created_at)::bigint AS created FROM turn;

-- name: add_turn
-- Accept a turn in a session that is locked by lock_session: its row and its messages, once.
WITH turn AS (
    INSERT INTO turns (id, user_id, session_id, shard, state, model, personality_id, fingerprint, arrival, bundle,
        ignored_messages)
    VALUES (%(turn_id)s, %(user_id)s, %(session_id)s, %(shard)s, %(state)s, %(model)s, %(personality_id)s,
        %(fingerprint)s, %(arrival)b, %(bundle)b, %(ignored_messages)s)
    ON CONFLICT (id) DO NOTHING
    RETURNING id, created_at
), said AS (
    INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
    SELECT said.id, %(session_id)s, %(turn_id)s, said.role, said.content, said.metadata
    FROM unnest(%(message_ids)s::uuid[], %(roles)s::text[], %(contents)s::jsonb[], %(metadata)s::jsonb[])
        WITH ORDINALITY AS said (id, role, content, metadata, position), turn
    ORDER BY said.position
    ON CONFLICT (id) DO NOTHING
)
SELECT extract(epoch FROM created_at)::bigint AS created FROM turn;

-- name: lock_session
-- Hold a caller's session until the transaction ends.
SELECT id, personality_id FROM sessions
WHERE id = %(session_id)s AND user_id = %(user_id)s AND deleted_at IS NULL
FOR UPDATE;

-- name: session_busy
-- Whether a turn of a locked session is still to be answered. Asked after the lock: what it waited for is seen only then.
-- In two questions, since each of the two has its index.
SELECT EXISTS (SELECT 1 FROM turns WHERE session_id = %(session_id)s
        AND state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
    OR EXISTS (SELECT 1 FROM turns WHERE session_id = %(session_id)s AND state = 'queued') AS busy;

-- name: find_turn
-- A turn as its acceptance left it, for a message that comes again.
SELECT id AS turn_id, user_id, session_id, personality_id, shard, state, round, fingerprint, ignored_messages,
    extract(epoch FROM created_at)::bigint AS created
FROM turns WHERE id = %(turn_id)s;

-- name: find_retried_turn
-- The caller's newest turn of the last minute with the same body, unless it failed: what a retry without a key means.
SELECT id AS turn_id, user_id, session_id, personality_id, shard, state, round, fingerprint, ignored_messages,
    extract(epoch FROM created_at)::bigint AS created
FROM turns
WHERE user_id = %(user_id)s AND created_at > now() - interval '60 seconds' AND fingerprint = %(fingerprint)s
    AND state NOT IN ('failed', 'interrupted')
ORDER BY created_at DESC LIMIT 1;

-- name: recent_messages
-- The newest messages of a session before a turn's own, oldest first, each as OpenAI's JSON.
SELECT message FROM (
    SELECT ord, (jsonb_strip_nulls(jsonb_build_object('role', role, 'tool_calls', metadata -> 'tool_calls',
        'tool_call_id', metadata -> 'tool_call_id')) || jsonb_build_object('content', content))::text AS message
    FROM messages
    WHERE session_id = %(session_id)s AND role <> 'system'
        AND turn_id IS DISTINCT FROM %(turn_id)s AND NOT metadata ? 'partial' AND coalesce(metadata ->> 'choice', '0') = '0'
        AND ord < coalesce((SELECT min(ord) FROM messages WHERE turn_id = %(turn_id)s), 9223372036854775807)
    ORDER BY ord DESC LIMIT %(limit)s
) newest ORDER BY ord;

-- name: released_turn
-- A turn whose time has come, with what is needed to prepare it.
SELECT id AS turn_id, session_id, shard, round, arrival FROM turns WHERE id = %(turn_id)s AND state = 'accepted';

-- name: prepare_turn
-- Store what the reply will be generated from.
UPDATE turns SET state = 'prepared', bundle = %(bundle)b, touched_at = clock_timestamp()
WHERE id = %(turn_id)s AND coalesce(state, '') = 'accepted';

-- name: claim_generation
-- Take hold of a prepared turn, or of one whose owner's lease is over.
UPDATE turns SET epoch = turns.epoch + 1, state = 'generating',
    attempts = turns.attempts + CASE WHEN turns.attempts = 0 OR turns.state = 'generating' THEN 1 ELSE 0 END,
    owner = %(owner)s, touched_at = clock_timestamp()
FROM (SELECT id, state FROM turns WHERE id = %(turn_id)s FOR UPDATE) AS before
WHERE turns.id = before.id AND turns.id = %(turn_id)s AND turns.round = %(round)s
    AND (coalesce(turns.state, '') = 'prepared' OR coalesce(turns.state, '') = 'generating'
        AND (turns.owner = %(owner)s
            OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner AND expires_at > clock_timestamp())))
RETURNING turns.id AS turn_id, turns.user_id, turns.session_id, turns.shard, turns.epoch, turns.attempts, turns.round,
    turns.arrival, turns.bundle, turns.shown_index, turns.shown_length, turns.shown_digest, turns.usage,
    before.state = 'generating' AS taken_over, extract(epoch FROM turns.created_at)::float8 AS created_at;

-- name: turn_state
-- Where a turn stands, for a delivery that found nothing to claim.
SELECT state, round, shard, epoch FROM turns WHERE id = %(turn_id)s;

-- name: turn_steps
-- What was said and called in this turn's earlier rounds, as OpenAI's JSON.
SELECT (jsonb_strip_nulls(jsonb_build_object('role', role, 'tool_calls', metadata -> 'tool_calls',
    'tool_call_id', metadata -> 'tool_call_id')) || jsonb_build_object('content', content))::text AS message
FROM messages
WHERE turn_id = %(turn_id)s AND role IN ('assistant', 'tool') AND NOT metadata ? 'partial'
ORDER BY ord;

-- name: keep_partial
-- Store the text so far of the replies under way, where the writer still owns them.
INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
SELECT said.id, turns.session_id, turns.id, 'assistant', to_jsonb(said.content), '{"partial": true}'
FROM unnest(%(message_ids)s::uuid[], %(turn_ids)s::uuid[], %(epochs)s::int[], %(contents)s::text[])
    AS said (id, turn_id, epoch, content)
JOIN turns ON turns.id = said.turn_id AND turns.epoch = said.epoch AND coalesce(turns.state, '') = 'generating'
ON CONFLICT (id) DO UPDATE SET content = excluded.content WHERE messages.metadata ? 'partial';

-- name: finish_turn
-- Commit a reply: the turn's end and its messages, by its owner only. Says whether another turn waits in the session.
WITH done AS (
    UPDATE turns SET state = %(state)s, owner = NULL, reply = reply || %(said)b::bytea, shown_index = %(shown_index)s, shown_length = %(shown_length)s,
        shown_digest = %(shown_digest)s, finish_reasons = %(finish_reasons)s, usage = %(usage)s::jsonb,
        timings = turns.timings || %(timings)s::jsonb, fault = %(fault)s::jsonb,
        touched_at = clock_timestamp(), finished_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'generating'
    RETURNING id, session_id
), said AS (
    INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
    SELECT said.id, done.session_id, done.id, 'assistant', said.content, said.metadata
    FROM unnest(%(message_ids)s::uuid[], %(contents)s::jsonb[], %(metadata)s::jsonb[]) AS said (id, content, metadata), done
    ON CONFLICT (id) DO UPDATE SET content = excluded.content, metadata = excluded.metadata
)
SELECT session_id, EXISTS (SELECT 1 FROM turns WHERE turns.session_id = done.session_id AND turns.state = 'queued')
    AS others_wait FROM done;

-- name: call_tools
-- Commit a round that asks for tools of ours: what was said, and the calls, by its owner only.
WITH calling AS (
    UPDATE turns SET state = 'calling_tools', owner = NULL, reply = reply || %(said)b::bytea, shown_index = %(shown_index)s,
        shown_length = %(shown_length)s, shown_digest = %(shown_digest)s, usage = %(usage)s::jsonb,
        timings = turns.timings || %(timings)s::jsonb, touched_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'generating'
    RETURNING id, session_id, round
), said AS (
    INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
    SELECT %(message_id)s, calling.session_id, calling.id, 'assistant', %(content)s::jsonb, %(metadata)s::jsonb FROM calling
    ON CONFLICT (id) DO UPDATE SET content = excluded.content, metadata = excluded.metadata
), asked AS (
    INSERT INTO tool_calls (id, turn_id, round, position, call_id, name, arguments)
    SELECT asked.id, calling.id, calling.round, asked.position, asked.call_id, asked.name, asked.arguments
    FROM unnest(%(ids)s::uuid[], %(call_ids)s::text[], %(names)s::text[], %(arguments)s::text[])
        WITH ORDINALITY AS asked (id, call_id, name, arguments, position), calling
    ON CONFLICT (id) DO NOTHING
)
SELECT session_id FROM calling;

-- name: claim_tools
-- Take hold of a turn whose tools are to be called, or of one whose owner's lease is over.
UPDATE turns SET epoch = epoch + 1, owner = %(owner)s, touched_at = clock_timestamp()
WHERE id = %(turn_id)s AND round = %(round)s AND coalesce(state, '') = 'calling_tools'
    AND (owner IS NULL OR owner = %(owner)s
        OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner AND expires_at > clock_timestamp()))
RETURNING id AS turn_id, user_id, session_id, shard, epoch, round, bundle, personality_id;

-- name: asked_calls
-- The calls of one round, in the model's order.
SELECT id, call_id, name, arguments, status, result FROM tool_calls
WHERE turn_id = %(turn_id)s AND round = %(round)s ORDER BY position;

-- name: start_call
-- Record that a call is about to have its effect; nothing comes back where it was started before.
UPDATE tool_calls SET status = 'started', started_at = clock_timestamp()
WHERE id = %(id)s AND status = 'asked' RETURNING id;

-- name: end_call
-- Record what a call answered, before anything uses it.
UPDATE tool_calls SET status = %(status)s, result = %(result)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND status IN ('asked', 'started');

-- name: finish_tools
-- Commit a round's tool results and let the next round be generated, by its owner only.
WITH done AS (
    UPDATE turns SET state = 'prepared', round = round + 1, owner = NULL, touched_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'calling_tools'
    RETURNING id, session_id
)
, said AS (
    INSERT INTO messages (id, session_id, turn_id, role, content, metadata)
    SELECT said.id, done.session_id, done.id, 'tool', to_jsonb(said.content), jsonb_build_object('tool_call_id', said.call_id)
    FROM unnest(%(message_ids)s::uuid[], %(contents)s::text[], %(call_ids)s::text[])
        WITH ORDINALITY AS said (id, content, call_id, position), done
    ORDER BY said.position
    ON CONFLICT (id) DO NOTHING
)
SELECT session_id FROM done;

-- name: fail_turn
-- End a turn that cannot go on, whoever owned it: the raised epoch makes the owner's later writes void.
UPDATE turns SET state = 'failed', epoch = epoch + 1, owner = NULL, fault = %(fault)s::jsonb,
    touched_at = clock_timestamp(), finished_at = clock_timestamp()
WHERE id = %(turn_id)s AND state IN ('queued', 'accepted', 'prepared', 'generating', 'calling_tools', 'awaiting_approval')
RETURNING id AS turn_id, session_id, shard, epoch;

-- name: count_failure
-- One more try at this turn went wrong for a reason of its own; says how many have.
UPDATE turns SET failures = failures + 1 WHERE id = %(turn_id)s RETURNING failures;

-- name: release_next
-- Let the next waiting turn of a session run, where none is running. Its messages take their place behind the last reply.
WITH ready AS (
    UPDATE turns SET state = 'accepted', touched_at = clock_timestamp()
    WHERE id = (SELECT id FROM turns WHERE session_id = %(session_id)s AND state = 'queued' ORDER BY ord LIMIT 1)
        AND state = 'queued'
        AND NOT EXISTS (SELECT 1 FROM turns running WHERE running.session_id = %(session_id)s
            AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
    RETURNING id AS turn_id, shard
), placed AS (
    UPDATE messages SET ord = waiting.place
    FROM (
        SELECT id, nextval(pg_get_serial_sequence('messages', 'ord')) AS place
        FROM (SELECT messages.id FROM messages JOIN ready USING (turn_id) ORDER BY messages.ord) AS in_order
    ) AS waiting
    WHERE messages.id = waiting.id
)
SELECT turn_id, shard FROM ready;

-- name: sweep
-- Turns that stand still although nobody holds them; marks them, so that each is driven again once.
UPDATE turns SET touched_at = clock_timestamp()
WHERE id IN (
    SELECT id FROM turns
    WHERE state IN ('accepted', 'prepared', 'generating', 'calling_tools')
        AND touched_at < clock_timestamp() - make_interval(secs => %(after)s)
        AND (owner IS NULL OR state IN ('accepted', 'prepared')
            OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner AND expires_at > clock_timestamp()))
    ORDER BY touched_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING id AS turn_id, state, round, shard;

-- name: sessions_standing_still
-- Sessions with a waiting turn and none running.
SELECT DISTINCT session_id FROM turns waiting
WHERE state = 'queued' AND touched_at < clock_timestamp() - make_interval(secs => %(after)s)
    AND NOT EXISTS (SELECT 1 FROM turns running WHERE running.session_id = waiting.session_id
        AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
LIMIT %(limit)s;

-- name: try_sweep_lock
-- Whether this process is the one that sweeps, until the transaction ends.
SELECT pg_try_advisory_xact_lock(%(lock)s) AS mine;

-- name: renew_lease
-- One row a process says that it is alive. Expired rows of others are cleared on the way.
WITH expired AS (DELETE FROM leases WHERE expires_at < clock_timestamp() - interval '1 hour')
INSERT INTO leases (worker_id, stage, expires_at)
VALUES (%(worker_id)s, %(stage)s, clock_timestamp() + make_interval(secs => %(lease)s))
ON CONFLICT (worker_id) DO UPDATE SET expires_at = excluded.expires_at;

-- name: give_up_lease
-- A process that stops in good order lets others take over at once.
DELETE FROM leases WHERE worker_id = %(worker_id)s;

-- name: turn_end
-- How a turn ended, for a delivery that finds its end committed but perhaps not told.
SELECT state, epoch, shard, session_id, shown_index, shown_length, shown_digest, finish_reasons, usage, fault
FROM turns WHERE id = %(turn_id)s AND state IN ('completed', 'failed', 'cancelled', 'interrupted');
