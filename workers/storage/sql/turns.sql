-- coalesce(state, '') where a turn is named by its id: a bare comparison lets the planner walk the small index of all
-- running turns instead of the primary key, at a thousand rows a claim on a busy day.

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

-- name: turn_end
-- How a turn ended, for a delivery that finds its end committed but perhaps not told.
SELECT state, epoch, shard, session_id, shown_index, shown_length, shown_digest, finish_reasons, usage, fault
FROM turns WHERE id = %(turn_id)s AND state IN ('completed', 'failed', 'cancelled', 'interrupted');
