-- name: note_turns
-- Note that turns' memory is to be written, and count them into their sessions: once, however often it is told.
WITH noted AS (
    INSERT INTO memory_writes (turn_id, user_id, session_id)
    SELECT id, user_id, session_id FROM turns WHERE id = ANY (%(turn_ids)s::uuid[])
    ON CONFLICT (turn_id) DO NOTHING
    RETURNING turn_id, session_id
), counted AS (
    SELECT noted.session_id, count(messages.id) AS messages
    FROM noted LEFT JOIN messages ON messages.turn_id = noted.turn_id GROUP BY noted.session_id
)
UPDATE sessions SET message_count = message_count + counted.messages, last_message_at = clock_timestamp()
FROM counted WHERE sessions.id = counted.session_id
RETURNING sessions.id AS session_id, (sessions.title IS NULL AND NOT sessions.hidden) AS untitled;

-- name: first_words
-- What a session's first message from its user says.
SELECT content::text AS content FROM messages WHERE session_id = %(session_id)s AND role = 'user' ORDER BY ord LIMIT 1;

-- name: title_session
-- Name a session that has no name yet.
UPDATE sessions SET title = %(title)s WHERE id = %(session_id)s AND title IS NULL;

