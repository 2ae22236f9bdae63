"""People, sessions, messages, turns, and what a turn leaves behind."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

UP = """
CREATE TABLE users (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'inactive')),
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    key_hash text NOT NULL UNIQUE,
    prefix text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_keys_of_user ON api_keys (user_id);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users,
    personality_id text,
    title text,
    hidden boolean NOT NULL DEFAULT false,
    message_count integer NOT NULL DEFAULT 0,
    last_message_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    deleted_at timestamptz
);
CREATE INDEX sessions_of_user ON sessions (user_id, created_at DESC, id DESC) WHERE NOT hidden AND deleted_at IS NULL;

CREATE TABLE turns (
    id uuid PRIMARY KEY,
    ord bigint GENERATED ALWAYS AS IDENTITY,
    user_id uuid NOT NULL REFERENCES users,
    session_id uuid NOT NULL REFERENCES sessions,
    shard integer NOT NULL,
    state text NOT NULL CHECK (state IN ('queued', 'accepted', 'prepared', 'generating', 'calling_tools',
        'awaiting_approval', 'completed', 'failed', 'cancelled', 'interrupted')),
    epoch integer NOT NULL DEFAULT 0,
    round integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    owner uuid,
    model text NOT NULL,
    personality_id text,
    fingerprint text NOT NULL,
    arrival bytea NOT NULL,
    bundle bytea,
    ignored_messages integer NOT NULL DEFAULT 0,
    shown_index integer NOT NULL DEFAULT 0,
    shown_length bigint NOT NULL DEFAULT 0,
    shown_digest bigint NOT NULL DEFAULT 0,
    finish_reasons text[],
    usage jsonb,
    timings jsonb NOT NULL DEFAULT '{}',
    fault jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    touched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON COLUMN turns.arrival IS 'msgpack of schemas.turns.TurnRequested: the request as it came';
COMMENT ON COLUMN turns.bundle IS 'msgpack of schemas.context.ContextBundle: what the reply is generated from';
COMMENT ON COLUMN turns.epoch IS 'raised by every claim and checked by every commit: a stale owner writes nothing';
CREATE UNIQUE INDEX one_running_turn_per_session ON turns (session_id)
    WHERE state IN ('accepted', 'prepared', 'generating', 'calling_tools');
CREATE INDEX queued_turns ON turns (session_id, ord) WHERE state = 'queued';
CREATE INDEX turns_of_user ON turns (user_id, created_at);

CREATE TABLE messages (
    id uuid PRIMARY KEY,
    ord bigint GENERATED ALWAYS AS IDENTITY,
    session_id uuid NOT NULL REFERENCES sessions,
    turn_id uuid,
    parent_id uuid,
    role text NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content jsonb,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX messages_of_session ON messages (session_id, ord);
CREATE INDEX messages_of_turn ON messages (turn_id);

CREATE TABLE tool_calls (
    id uuid PRIMARY KEY,
    turn_id uuid NOT NULL,
    round integer NOT NULL,
    position integer NOT NULL,
    call_id text NOT NULL,
    name text NOT NULL,
    arguments text NOT NULL,
    status text NOT NULL DEFAULT 'asked' CHECK (status IN ('asked', 'started', 'done', 'failed', 'unknown', 'denied')),
    result text,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    UNIQUE (turn_id, round, position)
);

CREATE TABLE audit_events (
    id uuid PRIMARY KEY,
    ord bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    type text NOT NULL,
    request_id text,
    user_id uuid,
    session_id uuid,
    turn_id uuid,
    personality_id text,
    payload jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_events_in_order ON audit_events (ord);
CREATE INDEX audit_events_of_user ON audit_events (user_id, ord);

CREATE TABLE memory_writes (
    turn_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    session_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz
);
CREATE INDEX memory_writes_waiting ON memory_writes (next_attempt_at) WHERE state = 'waiting';

CREATE TABLE leases (
    worker_id uuid PRIMARY KEY,
    stage text NOT NULL,
    expires_at timestamptz NOT NULL
);
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(UP)


def downgrade() -> None:
    """Going back is a new revision: data written since cannot be un-written."""
    raise NotImplementedError
