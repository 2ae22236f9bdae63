-- name: create_session
-- Make a session. Asked again with the same id it answers with the session that is there, if it is the same user's.
INSERT INTO sessions (id, user_id, personality_id, title)
VALUES (%(session_id)s, %(user_id)s, %(personality_id)s, nullif(%(title)s::text, ''))
ON CONFLICT (id) DO UPDATE SET id = excluded.id
    WHERE sessions.user_id = excluded.user_id AND sessions.deleted_at IS NULL
RETURNING id, title, personality_id, message_count, last_message_at, created_at;

-- name: get_session
-- A user's session, hidden ones included.
SELECT id, title, personality_id, message_count, last_message_at, created_at FROM sessions
WHERE id = %(session_id)s AND user_id = %(user_id)s AND deleted_at IS NULL;

-- name: list_sessions
-- A user's sessions that come after a place in the list, newest first. Hidden ones are in no list.
SELECT id, title, personality_id, message_count, last_message_at, created_at FROM sessions
WHERE user_id = %(user_id)s AND NOT hidden AND deleted_at IS NULL
    AND (created_at, id) < (%(after_created_at)s::timestamptz, %(after_id)s::uuid)
ORDER BY created_at DESC, id DESC LIMIT %(limit)s;

-- name: update_session
-- Change a session's title or personality. NULL leaves a value as it is, an empty title clears it.
UPDATE sessions SET
    title = CASE WHEN %(title)s::text IS NULL THEN title ELSE nullif(%(title)s::text, '') END,
    personality_id = coalesce(%(personality_id)s::text, personality_id)
WHERE id = %(session_id)s AND user_id = %(user_id)s AND deleted_at IS NULL
RETURNING id, title, personality_id, message_count, last_message_at, created_at;

-- name: delete_session
-- Take a session out of sight. Its turns go on, its rows stay.
UPDATE sessions SET deleted_at = clock_timestamp()
WHERE id = %(session_id)s AND user_id = %(user_id)s AND deleted_at IS NULL;

-- name: list_messages
-- A session's messages after a place, oldest first: as many as fit the bytes, but at least one; `found` counts them all.
SELECT id, ord, role, content, turn_id, parent_id, created_at, metadata, found FROM (
    SELECT page.*, count(*) OVER () AS found, row_number() OVER in_order AS position,
        sum(octet_length(content::text) + octet_length(metadata::text)) OVER in_order AS bytes
    FROM (
        SELECT id, ord, role, content, turn_id, parent_id, created_at, metadata FROM messages
        WHERE session_id = %(session_id)s AND ord > %(after_ord)s::bigint
        ORDER BY ord LIMIT %(limit)s
    ) AS page
    WINDOW in_order AS (ORDER BY ord)
) AS measured
WHERE position = 1 OR bytes <= %(max_bytes)s
ORDER BY ord;
