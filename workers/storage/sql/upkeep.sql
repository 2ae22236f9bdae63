-- name: sweep
-- Turns that stand still although nobody holds them; marks them, so that each is driven again once, and later each time.
-- What may still wait in its stage's backlog does not stand still. An owner that is silent gets one lease more than from
-- its message's redelivery: when PostgreSQL was away every lease is over at first. A stopped turn's owner gets a moment.
UPDATE turns SET touched_at = clock_timestamp(), sweeps = sweeps + 1
WHERE id IN (
    SELECT id FROM turns
    WHERE state IN ('accepted', 'prepared', 'generating', 'calling_tools')
        AND (touched_at < clock_timestamp() - make_interval(secs => greatest(%(after)s * 2 ^ least(sweeps, 6),
                %(after)s + (%(backlogs)s::jsonb ->> state)::float8))
            AND (owner IS NULL OR NOT EXISTS (SELECT 1 FROM leases WHERE worker_id = turns.owner
                AND expires_at > clock_timestamp() - make_interval(secs => %(lease)s)))
        OR greatest(stopped_at, touched_at) < clock_timestamp() - make_interval(secs => %(stopped)s * 2 ^ least(sweeps, 6))
            AND stopped_at IS NOT NULL)
    ORDER BY touched_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
RETURNING id AS turn_id, state, round, shard;

-- name: ended_untold
-- Turns that ended in this window of time and of which memory has never heard.
SELECT id AS turn_id, state, round, shard FROM turns
WHERE finished_at > clock_timestamp() - make_interval(secs => %(since)s)
    AND finished_at < clock_timestamp() - make_interval(secs => %(after)s)
    AND NOT EXISTS (SELECT 1 FROM memory_writes WHERE turn_id = turns.id)
LIMIT %(limit)s;

-- name: sessions_standing_still
-- Sessions with a waiting turn that nothing keeps from running.
SELECT DISTINCT session_id FROM turns waiting
WHERE state = 'queued' AND touched_at < clock_timestamp() - make_interval(secs => %(after)s)
    AND NOT EXISTS (SELECT 1 FROM turns running WHERE running.session_id = waiting.session_id
        AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
    AND (%(concurrent_turns)s::int IS NULL OR %(concurrent_turns)s::int > (SELECT count(*) FROM turns running
        WHERE running.user_id = waiting.user_id
        AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools')))
LIMIT %(limit)s;

-- name: try_sweep_lock
-- Whether this process is the one that sweeps, until the transaction ends.
SELECT pg_try_advisory_xact_lock(%(lock)s) AS mine;

-- name: renew_lease
-- One row a process says that it is alive. Expired rows of others are cleared on the way.
WITH expired AS (DELETE FROM leases WHERE expires_at < clock_timestamp() - interval '1 hour')
INSERT INTO leases (worker_id, stage, expires_at, slots)
VALUES (%(worker_id)s, %(stage)s, clock_timestamp() + make_interval(secs => %(lease)s), %(slots)s)
ON CONFLICT (worker_id) DO UPDATE SET expires_at = excluded.expires_at;

-- name: give_up_lease
-- A process that stops in good order lets others take over at once.
DELETE FROM leases WHERE worker_id = %(worker_id)s;
