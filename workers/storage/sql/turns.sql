-- coalesce(state, '') where a turn is named by its id: a bare comparison lets the planner walk the small index of all
-- running turns instead of the primary key, at a thousand rows a claim on a busy day.

-- name: claim_generation
-- Take hold of a prepared turn, or of one whose owner's lease is over. A stopped turn may be taken from an owner that
-- has not ended it within a second: it may be frozen.
UPDATE turns SET epoch = turns.epoch + 1, state = 'generating',
    attempts = turns.attempts + CASE WHEN turns.attempts = 0 OR turns.state = 'generating' THEN 1 ELSE 0 END,
    owner = %(owner)s, touched_at = clock_timestamp(), sweeps = 0
FROM (SELECT id, state FROM turns WHERE id = %(turn_id)s FOR UPDATE) AS before
WHERE turns.id = before.id AND turns.id = %(turn_id)s AND turns.round = %(round)s
    AND (coalesce(turns.state, '') = 'prepared' OR coalesce(turns.state, '') = 'generating'
        AND (turns.owner = %(owner)s
            OR turns.stopped_at < clock_timestamp() - interval '1 second'
                AND turns.touched_at < clock_timestamp() - interval '1 second'
            OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner AND expires_at > clock_timestamp())))
RETURNING turns.id AS turn_id, turns.user_id, turns.session_id, turns.shard, turns.epoch, turns.attempts, turns.round,
    turns.arrival, turns.bundle, turns.shown_index, turns.shown_length, turns.shown_digest, turns.usage,
    before.state = 'generating' AS taken_over, extract(epoch FROM turns.created_at)::float8 AS created_at,
    turns.stopped_at IS NOT NULL AS stopped;

-- name: let_go
-- Give turns back that their owner leaves unfinished, so that any worker may claim them at once.
UPDATE turns SET owner = NULL, touched_at = clock_timestamp()
FROM unnest(%(turn_ids)s::uuid[], %(epochs)s::int[]) AS held (id, epoch)
WHERE turns.id = held.id AND turns.epoch = held.epoch AND coalesce(turns.state, '') IN ('generating', 'calling_tools');

-- name: lost_claims
-- Which of these claims hold no more: whoever takes a turn over, or ends it from outside, raises its epoch.
SELECT turns.id AS turn_id, held.epoch FROM unnest(%(turn_ids)s::uuid[], %(epochs)s::int[]) AS held (id, epoch)
JOIN turns ON turns.id = held.id AND turns.epoch > held.epoch;

-- name: turn_state
-- Where a turn stands, for a delivery that found nothing to claim: and how long until its owner may be taken for dead.
SELECT state, round, shard, epoch, greatest(0, least(
    coalesce((SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM leases WHERE worker_id = turns.owner), 0),
    CASE WHEN stopped_at IS NOT NULL THEN 1 + extract(epoch FROM greatest(stopped_at, touched_at) - clock_timestamp()) END
))::float8 AS claim_in
FROM turns WHERE id = %(turn_id)s;

-- name: turn_steps
-- What was said and called in this turn's earlier rounds, as OpenAI's JSON.
SELECT (jsonb_strip_nulls(jsonb_build_object('role', role, 'tool_calls', metadata -> 'tool_calls',
    'tool_call_id', metadata -> 'tool_call_id')) || jsonb_build_object('content', content))::text AS message
FROM messages
WHERE turn_id = %(turn_id)s AND role IN ('assistant', 'tool') AND NOT metadata ? 'partial'
ORDER BY ord;

-- name: keep_partial
-- Store the text so far of the replies under way, where the writer still owns them; says which these are.
WITH owned AS (
    SELECT said.id, turns.session_id, turns.id AS turn_id, turns.ord, said.content
    FROM unnest(%(message_ids)s::uuid[], %(turn_ids)s::uuid[], %(epochs)s::int[], %(contents)s::text[])
        AS said (id, turn_id, epoch, content)
    JOIN turns ON turns.id = said.turn_id AND turns.epoch = said.epoch AND coalesce(turns.state, '') = 'generating'
), kept AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT id, session_id, turn_id, last_place(turn_id, ord) + 1, 'assistant', to_jsonb(content), '{"partial": true}'
    FROM owned
    ON CONFLICT (id) DO UPDATE SET content = excluded.content WHERE messages.metadata ? 'partial'
)
SELECT turn_id FROM owned;

-- name: kept_partial
-- What was last kept of a reply under way.
SELECT content #>> '{}' AS message FROM messages WHERE id = %(id)s AND metadata ? 'partial';

-- name: finish_turn
-- Commit a reply: the turn's end and its messages, by its owner only.
WITH done AS (
    UPDATE turns SET state = %(state)s, owner = NULL, reply = reply || %(said)b::bytea, shown_index = %(shown_index)s, shown_length = %(shown_length)s,
        shown_digest = %(shown_digest)s, finish_reasons = %(finish_reasons)s, usage = %(usage)s::jsonb,
        timings = turns.timings || %(timings)s::jsonb, fault = %(fault)s::jsonb,
        touched_at = clock_timestamp(), finished_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'generating'
    RETURNING id, session_id, ord
), said AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT said.id, done.session_id, done.id, last_place(done.id, done.ord) + said.position, 'assistant', said.content,
        said.metadata
    FROM unnest(%(message_ids)s::uuid[], %(contents)s::jsonb[], %(metadata)s::jsonb[])
        WITH ORDINALITY AS said (id, content, metadata, position), done
    ON CONFLICT (id) DO UPDATE SET content = excluded.content, metadata = excluded.metadata
)
SELECT session_id FROM done;

-- name: call_tools
-- Commit a round that asks for tools of ours: what was said, and the calls, by its owner only, unless it was stopped.
WITH calling AS (
    UPDATE turns SET state = 'calling_tools', owner = NULL, reply = reply || %(said)b::bytea, shown_index = %(shown_index)s,
        shown_length = %(shown_length)s, shown_digest = %(shown_digest)s, usage = %(usage)s::jsonb,
        timings = turns.timings || %(timings)s::jsonb, touched_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'generating' AND stopped_at IS NULL
    RETURNING id, session_id, round, ord
), said AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT %(message_id)s, calling.session_id, calling.id, last_place(calling.id, calling.ord) + 1, 'assistant',
        %(content)s::jsonb, %(metadata)s::jsonb
    FROM calling
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
-- Take hold of a turn whose tools are to be called, or of one whose owner's lease is over or that does not stop.
UPDATE turns SET epoch = epoch + 1, owner = %(owner)s, touched_at = clock_timestamp(), sweeps = 0
WHERE id = %(turn_id)s AND round = %(round)s AND coalesce(state, '') = 'calling_tools'
    AND (owner IS NULL OR owner = %(owner)s
        OR stopped_at < clock_timestamp() - interval '1 second' AND touched_at < clock_timestamp() - interval '1 second'
        OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner AND expires_at > clock_timestamp()))
RETURNING id AS turn_id, user_id, session_id, shard, epoch, round, bundle, personality_id, stopped_at IS NOT NULL AS stopped;

-- name: asked_calls
-- The calls of one round, in the model's order.
SELECT id, call_id, name, arguments, status, result FROM tool_calls
WHERE turn_id = %(turn_id)s AND round = %(round)s ORDER BY position;

-- name: start_call
-- Record that a call is about to have its effect, for its turn's owner: `first` where it was not started before.
-- The turn is held meanwhile, so that its stop comes either before, and nothing starts, or after.
WITH held AS (
    SELECT stopped_at IS NOT NULL AS stopped FROM turns
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'calling_tools' FOR SHARE
), started AS (
    UPDATE tool_calls SET status = 'started', started_at = clock_timestamp() FROM held
    WHERE id = %(id)s AND status = 'asked' AND NOT held.stopped RETURNING id
)
SELECT stopped, EXISTS (SELECT 1 FROM started) AS first FROM held;

-- name: end_call
-- Record what a call answered, before anything uses it.
UPDATE tool_calls SET status = %(status)s, result = %(result)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND status IN ('asked', 'started');

-- name: finish_tools
-- Commit a round's tool results and let the next round be generated, by its owner only.
WITH done AS (
    UPDATE turns SET state = 'prepared', round = round + 1, owner = NULL, touched_at = clock_timestamp()
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'calling_tools'
    RETURNING id, session_id, ord
), said AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT said.id, done.session_id, done.id, last_place(done.id, done.ord) + said.position, 'tool',
        to_jsonb(said.content), jsonb_build_object('tool_call_id', said.call_id)
    FROM unnest(%(message_ids)s::uuid[], %(contents)s::text[], %(call_ids)s::text[])
        WITH ORDINALITY AS said (id, content, call_id, position), done
    ON CONFLICT (id) DO NOTHING
)
SELECT session_id FROM done;

-- name: requests_of
-- What was asked in turns of a user.
SELECT id AS turn_id, arrival FROM turns WHERE id = ANY (%(turn_ids)s::uuid[]) AND user_id = %(user_id)s;

-- name: stop_turns
-- Stop turns of a user. One that nobody writes ends at once, each of its choices, with what was asked of tools denied;
-- the others have an owner who ends them, or are given one.
WITH stopped AS (
    UPDATE turns SET stopped_at = coalesce(stopped_at, clock_timestamp()),
        state = CASE WHEN state IN ('generating', 'calling_tools') THEN state ELSE 'cancelled' END,
        epoch = CASE WHEN state IN ('generating', 'calling_tools') THEN epoch ELSE epoch + 1 END,
        owner = CASE WHEN state IN ('generating', 'calling_tools') THEN owner END,
        finish_reasons = CASE WHEN state NOT IN ('generating', 'calling_tools')
            THEN array_fill('stop'::text, ARRAY[asked.choices]) END,
        touched_at = CASE WHEN stopped_at IS NULL THEN clock_timestamp() ELSE touched_at END,
        finished_at = CASE WHEN state NOT IN ('generating', 'calling_tools') THEN clock_timestamp() END
    FROM unnest(%(turn_ids)s::uuid[], %(choices)s::int[]) AS asked (id, choices)
    WHERE turns.id = asked.id AND user_id = %(user_id)s AND coalesce(state, '')
        IN ('queued', 'accepted', 'prepared', 'generating', 'calling_tools', 'awaiting_approval')
    RETURNING turns.id AS turn_id, session_id, shard, round, state, turns.ord
), denied AS (
    UPDATE tool_calls SET status = 'denied', result = %(denied)s, finished_at = clock_timestamp()
    FROM stopped
    WHERE stopped.state = 'cancelled' AND tool_calls.turn_id = stopped.turn_id AND tool_calls.round = stopped.round
        AND result IS NULL
), said AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT gen_random_uuid(), session_id, turn_id, last_place(turn_id, ord) + 1 + position, 'tool',
        to_jsonb(coalesce(result, %(denied)s)), jsonb_build_object('tool_call_id', call_id)
    FROM stopped JOIN tool_calls USING (turn_id, round)
    WHERE stopped.state = 'cancelled'
)
SELECT turn_id, session_id, shard, round, state FROM stopped;

-- name: stopped_turn
-- A turn of the user's that a stop has ended.
SELECT id AS turn_id FROM turns WHERE id = %(turn_id)s AND user_id = %(user_id)s AND coalesce(state, '') = 'cancelled';

-- name: unanswered_turns
-- A session's turns that have not ended, oldest first. In three questions, since each of them has its index.
SELECT id AS turn_id FROM (
    SELECT id, ord FROM turns WHERE session_id = %(session_id)s
        AND state IN ('accepted', 'prepared', 'generating', 'calling_tools')
    UNION ALL SELECT id, ord FROM turns WHERE session_id = %(session_id)s AND state = 'queued'
    UNION ALL SELECT id, ord FROM turns WHERE session_id = %(session_id)s AND state = 'awaiting_approval'
) unanswered ORDER BY ord;

-- name: fail_turn
-- End a turn that cannot go on, whoever owned it: the raised epoch makes the owner's later writes void.
UPDATE turns SET state = 'failed', epoch = epoch + 1, owner = NULL, fault = %(fault)s::jsonb,
    touched_at = clock_timestamp(), finished_at = clock_timestamp()
WHERE id = %(turn_id)s AND state IN ('queued', 'accepted', 'prepared', 'generating', 'calling_tools', 'awaiting_approval')
RETURNING id AS turn_id, session_id, shard, epoch;

-- name: keep_shown
-- Make what readers were shown of a failed turn's last round, which nobody had committed, a part of its reply: once.
WITH kept AS (
    UPDATE turns SET reply = reply || %(said)b::bytea, shown_index = %(shown_index)s, shown_length = %(shown_length)s,
        shown_digest = %(shown_digest)s
    WHERE id = %(turn_id)s AND epoch = %(epoch)s AND coalesce(state, '') = 'failed' AND shown_index < %(shown_index)s
    RETURNING id, session_id, ord
)
INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
SELECT said.id, kept.session_id, kept.id, last_place(kept.id, kept.ord) + said.position, 'assistant', said.content,
    said.metadata
FROM unnest(%(message_ids)s::uuid[], %(contents)s::jsonb[], %(metadata)s::jsonb[])
    WITH ORDINALITY AS said (id, content, metadata, position), kept
ON CONFLICT (id) DO UPDATE SET content = excluded.content, metadata = excluded.metadata;

-- name: count_failure
-- One more try at this turn went wrong for a reason of its own; says how many have.
UPDATE turns SET failures = failures + 1 WHERE id = %(turn_id)s RETURNING failures;

-- name: turn_end
-- How a turn ended, for a delivery that finds its end committed but perhaps not told.
SELECT state, epoch, shard, session_id, shown_index, shown_length, shown_digest, finish_reasons, usage, fault, round
FROM turns WHERE id = %(turn_id)s AND state IN ('completed', 'failed', 'cancelled', 'interrupted');
