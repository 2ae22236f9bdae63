-- name: place_turn
-- Accept a turn, in time: its row and its messages, once; one that stands alone with its hidden session, any other in the
-- session that lock_session holds. Not where this question was refused before: then it comes again as a copy that nobody
-- waits for any more. And not where find_retry would find that it was overtaken.
WITH in_time AS MATERIALIZED (
    SELECT 1 WHERE clock_timestamp() < to_timestamp(%(expires_at)s)
        AND NOT EXISTS (SELECT 1 FROM refusals WHERE question = %(question)s)
        AND NOT EXISTS (SELECT 1 FROM turns retry WHERE %(first_try)s AND retry.retried AND retry.user_id = %(user_id)s
            AND retry.created_at > now() - interval '60 seconds' AND retry.fingerprint = %(fingerprint)s
            AND retry.id > %(turn_id)s)
), session AS (
    INSERT INTO sessions (id, user_id, personality_id, hidden)
    SELECT %(session_id)s, %(user_id)s, %(personality_id)s, true FROM in_time WHERE %(alone)s
    ON CONFLICT (id) DO NOTHING
), turn AS (
    INSERT INTO turns (id, user_id, session_id, shard, state, model, personality_id, fingerprint, arrival, bundle,
        ignored_messages, retried)
    SELECT %(turn_id)s, %(user_id)s, %(session_id)s, %(shard)s, %(state)s, %(model)s, %(personality_id)s,
        %(fingerprint)s, %(arrival)b, %(bundle)b, %(ignored_messages)s, %(retried)s FROM in_time
    ON CONFLICT DO NOTHING -- of any kind: asked for twice at once, it may be its own rival for its session
    RETURNING id, ord, created_at
), said AS (
    INSERT INTO messages (id, session_id, turn_id, ord, role, content, metadata)
    SELECT said.id, %(session_id)s, %(turn_id)s, last_place(turn.id, turn.ord) + said.position, said.role, said.content,
        said.metadata
    FROM unnest(%(message_ids)s::uuid[], %(roles)s::text[], %(contents)s::jsonb[], %(metadata)s::jsonb[])
        WITH ORDINALITY AS said (id, role, content, metadata, position), turn
    ON CONFLICT (id) DO NOTHING
)
SELECT extract(epoch FROM created_at)::bigint AS created FROM turn;

-- name: lock_session
-- Hold a caller's session against other acceptances until the transaction ends. Commits of its turns are not kept out.
SELECT id, personality_id FROM sessions WHERE id = %(session_id)s AND user_id = %(user_id)s AND deleted_at IS NULL
FOR NO KEY UPDATE;

-- name: refuse_question
-- Remember that this question was refused for how things stood: its copies, still under way, are not to be accepted.
INSERT INTO refusals (question) VALUES (%(question)s) ON CONFLICT DO NOTHING;

-- name: session_busy
-- Whether a turn of a locked session is still to be answered. Asked after the lock: what it waited for is seen only then.
-- In two questions, since each of the two has its index.
SELECT EXISTS (SELECT 1 FROM turns WHERE session_id = %(session_id)s
        AND state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
    OR EXISTS (SELECT 1 FROM turns WHERE session_id = %(session_id)s AND state = 'queued') AS busy;

-- name: lock_user
-- Let no other acceptance or release count this user's turns until the transaction ends.
SELECT pg_advisory_xact_lock(%(lock)s, hashtext(%(user_id)s));

-- name: running_turns
-- How many turns of a user are being worked on.
SELECT count(*) AS running FROM turns WHERE user_id = %(user_id)s
    AND state IN ('accepted', 'prepared', 'generating', 'calling_tools');

-- name: find_turn
-- A turn as its acceptance left it, for a message that comes again.
SELECT id AS turn_id, user_id, session_id, personality_id, shard, state, round, fingerprint, ignored_messages,
    extract(epoch FROM created_at)::bigint AS created
FROM turns WHERE id = %(turn_id)s;

-- name: find_retried_turn
-- The caller's newest turn of the last minute with the same body: what a retry without a key means. A turn alone that
-- failed is tried anew, in a session that would say the same thing twice.
SELECT id AS turn_id, user_id, session_id, personality_id, shard, state, round, fingerprint, ignored_messages,
    extract(epoch FROM created_at)::bigint AS created
FROM turns
WHERE user_id = %(user_id)s AND created_at > now() - interval '60 seconds' AND fingerprint = %(fingerprint)s
    AND (%(failed_too)s OR state NOT IN ('failed', 'interrupted'))
ORDER BY created_at DESC LIMIT 1;

-- name: find_retry
-- The retry that overtook a first try without a key: the same caller's, with the same body, and asked for later.
SELECT id AS turn_id, user_id, session_id, personality_id, shard, state, round, fingerprint, ignored_messages,
    extract(epoch FROM created_at)::bigint AS created
FROM turns
WHERE retried AND user_id = %(user_id)s AND created_at > now() - interval '60 seconds' AND fingerprint = %(fingerprint)s
    AND id > %(turn_id)s
ORDER BY created_at DESC LIMIT 1;

-- name: recent_messages
-- The newest messages of a session before a turn's own, oldest first, each as OpenAI's JSON, within so many bytes.
-- A part of a reply that broke off is among them: it was said, and heard.
SELECT message FROM (
    SELECT ord, (jsonb_strip_nulls(jsonb_build_object('role', role, 'tool_calls', metadata -> 'tool_calls',
        'tool_call_id', metadata -> 'tool_call_id')) || jsonb_build_object('content', content))::text AS message,
        sum(octet_length(content::text)) OVER (ORDER BY ord DESC) AS bytes
    FROM (
        SELECT ord, role, content, metadata FROM messages
        WHERE session_id = %(session_id)s AND role <> 'system'
            AND turn_id IS DISTINCT FROM %(turn_id)s AND coalesce(metadata ->> 'choice', '0') = '0'
            AND ord < coalesce((SELECT min(ord) FROM messages WHERE turn_id = %(turn_id)s), 9223372036854775807)
        ORDER BY ord DESC LIMIT %(limit)s
    ) AS newest
) AS measured WHERE coalesce(bytes, 0) <= %(max_bytes)s ORDER BY ord;

-- name: released_turn
-- A turn whose time has come, with what is needed to prepare it.
SELECT id AS turn_id, session_id, personality_id, shard, round, arrival FROM turns WHERE id = %(turn_id)s AND state = 'accepted';

-- name: prepare_turn
-- Store what the reply will be generated from.
UPDATE turns SET state = 'prepared', bundle = %(bundle)b, touched_at = clock_timestamp(), sweeps = 0
WHERE id = %(turn_id)s AND coalesce(state, '') = 'accepted';

-- name: queue_behind
-- Whose a session is, whether any turn of that user waits to run or to be put on its way, and how many run.
SELECT user_id, EXISTS (SELECT 1 FROM turns WHERE turns.user_id = sessions.user_id AND state = 'queued') AS waits,
    EXISTS (SELECT 1 FROM turns WHERE turns.user_id = sessions.user_id AND state = 'accepted') AS stands,
    (SELECT count(*) FROM turns WHERE turns.user_id = sessions.user_id
        AND state IN ('accepted', 'prepared', 'generating', 'calling_tools')) AS running
FROM sessions WHERE id = %(session_id)s;

-- name: release_of_user
-- Let a user's oldest waiting turns run whose sessions are free, as many as the limit has room for. Under lock_user.
-- Those that were let run before are named again: whoever did it may have died before it could put them on their way.
-- Rows that are being stopped are skipped: waiting for them could be waiting for each other.
WITH chosen AS (
    SELECT id FROM turns waiting
    WHERE user_id = %(user_id)s AND state = 'queued'
        AND NOT EXISTS (SELECT 1 FROM turns running WHERE running.session_id = waiting.session_id
            AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
        AND NOT EXISTS (SELECT 1 FROM turns before WHERE before.session_id = waiting.session_id
            AND before.state = 'queued' AND before.ord < waiting.ord)
    ORDER BY ord
    LIMIT greatest(0, %(limit)s - (SELECT count(*) FROM turns running WHERE running.user_id = %(user_id)s
        AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools')))
    FOR UPDATE SKIP LOCKED
), ready AS (
    UPDATE turns SET state = 'accepted', touched_at = clock_timestamp()
    FROM chosen WHERE turns.id = chosen.id
    RETURNING turns.id AS turn_id, turns.shard
)
SELECT turn_id, shard FROM ready
UNION ALL
SELECT id, shard FROM turns WHERE user_id = %(user_id)s AND state = 'accepted';

-- name: release_in_session
-- Let the next waiting turn of a session run, where none is running.
-- One that was let run before is named again: whoever did it may have died before it could put it on its way.
WITH ready AS (
    UPDATE turns SET state = 'accepted', touched_at = clock_timestamp()
    WHERE id = (SELECT id FROM turns WHERE session_id = %(session_id)s AND state = 'queued' ORDER BY ord LIMIT 1)
        AND state = 'queued'
        AND NOT EXISTS (SELECT 1 FROM turns running WHERE running.session_id = %(session_id)s
            AND running.state IN ('accepted', 'prepared', 'generating', 'calling_tools'))
    RETURNING id AS turn_id, shard
)
SELECT turn_id, shard FROM ready
UNION ALL
SELECT id, shard FROM turns WHERE session_id = %(session_id)s AND state = 'accepted';
