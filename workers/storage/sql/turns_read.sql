-- name: get_turn
-- A user's turn, whether or not its session is still shown.
SELECT id, state, session_id, model, personality_id, attempts, usage, timings, created_at, finished_at, fault
FROM turns WHERE id = %(turn_id)s AND user_id = %(user_id)s;

-- name: get_replied_turn
-- A turn with what was shown of its reply. Nothing where the session was deleted: its words are gone from sight.
SELECT turns.id AS turn_id, turns.session_id, turns.personality_id, turns.model, turns.shard, turns.state,
    extract(epoch FROM turns.created_at)::bigint AS created, turns.epoch, turns.ignored_messages, turns.reply, turns.shown_index,
    turns.shown_length, turns.shown_digest, turns.finish_reasons, turns.usage, turns.fault
FROM turns JOIN sessions ON sessions.id = turns.session_id
WHERE turns.id = %(turn_id)s AND turns.user_id = %(user_id)s AND sessions.deleted_at IS NULL;

-- name: ping
-- Whether the database answers, and what time it is there.
SELECT extract(epoch FROM clock_timestamp())::float8 AS now;
