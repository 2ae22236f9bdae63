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
RETURNING id AS turn_id, state, round, shard, stopped_at IS NOT NULL AS stopped;

-- name: not_driven
-- These could not be sent on after all: they still stand still.
UPDATE turns SET sweeps = greatest(sweeps - 1, 0), touched_at = clock_timestamp() - make_interval(secs => %(after)s)
WHERE id = ANY(%(turn_ids)s::uuid[]) AND state IN ('accepted', 'prepared', 'generating', 'calling_tools');

-- name: ended_untold
-- Turns that ended in this window of time and of which memory has never heard. By now(): no index serves a clock that ticks.
SELECT id AS turn_id, state, round, shard FROM turns
WHERE finished_at > now() - make_interval(secs => %(since)s)
    AND finished_at < now() - make_interval(secs => %(after)s)
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

-- name: forget_refusals
-- Clear away what was refused an hour ago: no copy of it is under way any more. So many at once as a statement has time for.
DELETE FROM refusals WHERE question = ANY (ARRAY(
    SELECT question FROM refusals WHERE refused_at < now() - interval '1 hour' LIMIT 10000
));

-- name: try_sweep_lock
-- Whether this process is the one that sweeps, until the transaction ends; a holder that freezes is thrown out.
SELECT pg_try_advisory_xact_lock(%(lock)s) AS mine,
    set_config('idle_in_transaction_session_timeout', %(patience)s, true) AS patience;

-- name: renew_lease
-- One row a process says that it is alive, and how much it can be given. One that does not hear the bus is not renewed
-- while another of its stage has slots, and so may take its turns over. Where none has, the bus is away from all of them:
-- then everybody keeps what is his. Expired rows of others are cleared on the way, and those that end too late, since the
-- clock was set back, are cut to a lease from now.
WITH expired AS (
    DELETE FROM leases WHERE expires_at < clock_timestamp() - interval '1 hour'
), cut AS (
    UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
    WHERE worker_id <> %(worker_id)s AND expires_at > clock_timestamp() + 2 * make_interval(secs => %(lease)s)
)
INSERT INTO leases (worker_id, stage, expires_at, slots)
VALUES (%(worker_id)s, %(stage)s, clock_timestamp() + make_interval(secs => %(lease)s), %(slots)s)
ON CONFLICT (worker_id) DO UPDATE SET slots = excluded.slots,
    expires_at = CASE WHEN %(hears)s OR NOT EXISTS (SELECT 1 FROM leases AS other WHERE other.stage = excluded.stage
        AND other.worker_id <> excluded.worker_id AND other.slots > 0 AND other.expires_at > clock_timestamp())
        THEN excluded.expires_at ELSE leases.expires_at END;

-- name: give_up_lease
-- A process that stops in good order lets others take over at once.
DELETE FROM leases WHERE worker_id = %(worker_id)s;
