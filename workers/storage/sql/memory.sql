-- name: note_turn
-- Note that a turn's memory is to be written, and count it into its session: both once, however often it is told.
WITH noted AS (
    INSERT INTO memory_writes (turn_id, user_id, session_id)
    SELECT id, user_id, session_id FROM turns WHERE id = %(turn_id)s
    ON CONFLICT (turn_id) DO NOTHING
    RETURNING turn_id, session_id
), counted AS (
    SELECT session_id, (SELECT count(*) FROM messages WHERE messages.turn_id = noted.turn_id) AS messages FROM noted
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

