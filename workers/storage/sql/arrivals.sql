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
