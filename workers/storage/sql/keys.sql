-- name: add_key
-- Add a key. What is stored of it can recognise it, not rebuild it.
INSERT INTO api_keys (id, user_id, key_hash, prefix, expires_at)
VALUES (%(key_id)s, %(user_id)s, %(key_hash)s, %(prefix)s, now() + make_interval(days => %(expires_days)s::int))
ON CONFLICT (id) DO NOTHING;

-- name: list_keys
-- Every key, or one user's, oldest first.
SELECT api_keys.id, api_keys.key_hash, api_keys.prefix, users.name AS user_name, users.role, users.status = 'active' AS active,
    api_keys.created_at, api_keys.last_used_at, api_keys.expires_at, api_keys.revoked_at,
    coalesce(api_keys.expires_at <= clock_timestamp(), false) AS expired
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE %(user_name)s::text IS NULL OR users.name = %(user_name)s::text
ORDER BY api_keys.created_at, api_keys.id;

-- name: find_keys
-- The keys that an id or a prefix means; a prefix may mean several.
SELECT api_keys.id, api_keys.key_hash, api_keys.prefix, users.name AS user_name, users.role, users.status = 'active' AS active,
    api_keys.created_at, api_keys.last_used_at, api_keys.expires_at, api_keys.revoked_at,
    coalesce(api_keys.expires_at <= clock_timestamp(), false) AS expired
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.id::text = %(named)s OR api_keys.prefix = %(named)s
ORDER BY api_keys.created_at, api_keys.id;

-- name: revoke_key
-- End a key for good. A key revoked before keeps its first moment.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE id = %(key_id)s;
