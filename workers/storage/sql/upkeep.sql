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
