-- name: take_time
-- All that there is takes longer to read than a transaction may otherwise stand idle.
SELECT set_config('idle_in_transaction_session_timeout', '60s', true);

-- name: every_turn
-- Every turn, and how it stands.
SELECT turns.id, turns.session_id, turns.ord, turns.state, turns.attempts, turns.finished_at IS NOT NULL AS ended,
    coalesce(turns.fault ->> 'code', '') AS fault,
    EXISTS (SELECT 1 FROM memory_writes WHERE memory_writes.turn_id = turns.id) AS remembered
FROM turns ORDER BY turns.ord;

-- name: every_message
-- Every message in its session's order.
SELECT id, session_id, coalesce(turn_id::text, '') AS turn_id, ord, role, coalesce(content #>> '{}', '') AS text,
    metadata ? 'tool_calls' AS calls, metadata ? 'partial' AS partial,
    coalesce(metadata ->> 'choice', '0')::int AS choice, coalesce(metadata ->> 'tool_call_id', '') AS answers
FROM messages ORDER BY session_id, ord;

-- name: every_call
-- Every call of a tool of ours.
SELECT id, turn_id, name, arguments, status FROM tool_calls ORDER BY turn_id, round, position;

-- name: every_session
-- Every session, with how many messages were counted into it.
SELECT id, message_count AS counted FROM sessions;
