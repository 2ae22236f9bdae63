-- name: find_key
-- Whose key has this hash, and what speaks against it.
SELECT api_keys.id AS key_id, users.id AS user_id, users.role, users.status = 'active' AS active,
    api_keys.revoked_at IS NOT NULL AS revoked, coalesce(api_keys.expires_at <= clock_timestamp(), false) AS expired
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.key_hash = %(key_hash)s;

-- name: find_user
-- The user of a name.
SELECT id AS user_id, role, status = 'active' AS active FROM users WHERE name = %(name)s;

-- name: add_user
-- Add a user. One already there, by id or by name, is left as they are.
INSERT INTO users (id, name, role) VALUES (%(user_id)s, %(name)s, %(role)s) ON CONFLICT DO NOTHING;

-- name: note_last_use
-- Store when keys were last used, for each at most once a minute.
UPDATE api_keys SET last_used_at = used.at
FROM unnest(%(key_ids)s::uuid[], %(moments)s::timestamptz[]) AS used (key_id, at)
WHERE api_keys.id = used.key_id
    AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at <= used.at - interval '1 minute');
