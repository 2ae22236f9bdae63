-- name: turn_life
-- Everything an operator may see of a turn: where it stands and how it came there, and none of its words.
SELECT turns.id, turns.session_id, turns.shard, turns.state, turns.epoch, turns.round, turns.attempts, turns.failures,
    turns.sweeps, turns.owner, leases.stage AS owner_stage,
    extract(epoch FROM leases.expires_at - clock_timestamp())::float8 AS lease_left,
    turns.model, turns.personality_id, turns.finish_reasons, turns.usage, turns.timings, turns.fault,
    turns.shown_index, turns.shown_length, turns.created_at, turns.touched_at, turns.stopped_at, turns.finished_at,
    clock_timestamp() AS now, memory_writes.state AS memory,
    (SELECT count(*) FROM turns ahead
        WHERE ahead.session_id = turns.session_id AND ahead.state = 'queued' AND ahead.ord < turns.ord) AS queued_ahead,
    (SELECT running.id FROM turns running WHERE running.session_id = turns.session_id AND running.id <> turns.id
        AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools')) AS running_ahead
FROM turns
LEFT JOIN leases ON leases.worker_id = turns.owner
LEFT JOIN memory_writes ON memory_writes.turn_id = turns.id
WHERE turns.id = %(turn_id)s;

-- name: calls_of_turn
-- A turn's tool calls, in the order they were asked for, without what was asked and answered.
SELECT round, position, name, status, created_at, started_at, finished_at FROM tool_calls
WHERE turn_id = %(turn_id)s ORDER BY round, position;

-- name: messages_of_turn
-- How many messages a turn has stored, by who speaks, and how many of them are a reply's part so far.
SELECT role, count(*) AS messages, count(*) FILTER (WHERE metadata ? 'partial') AS partial FROM messages
WHERE turn_id = %(turn_id)s GROUP BY role ORDER BY role;

-- name: turns_standing
-- How many turns have not ended, by state, and when the oldest of them was accepted.
SELECT state, count(*) AS turns, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest FROM turns
WHERE state IN ('accepted', 'prepared', 'generating', 'calling_tools') GROUP BY state
UNION ALL
SELECT state, count(*) AS turns, extract(epoch FROM clock_timestamp() - min(created_at))::float8 AS oldest FROM turns
WHERE state = 'queued' GROUP BY state;

-- name: workers_by_stage
-- How many processes of each stage renew their lease, how many fell silent within the hour, and the living ones' slots.
SELECT stage, count(*) FILTER (WHERE expires_at > clock_timestamp()) AS alive,
    count(*) FILTER (WHERE expires_at <= clock_timestamp()) AS silent,
    coalesce(sum(slots) FILTER (WHERE expires_at > clock_timestamp()), 0)::int AS slots
FROM leases GROUP BY stage ORDER BY stage;

-- name: forgive
-- Count a turn's failures from nothing again, so that a letter that is sent again has all its tries.
UPDATE turns SET failures = 0 WHERE id = %(turn_id)s;
