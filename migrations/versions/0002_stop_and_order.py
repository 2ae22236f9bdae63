"""Stopping a turn, counting its sweeps, and finding the waiting and the running turns of a user."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

UP = """
ALTER TABLE turns ADD COLUMN stopped_at timestamptz;
ALTER TABLE turns ADD COLUMN sweeps integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN turns.stopped_at IS 'when its user said stop: no tool effect starts afterwards';
COMMENT ON COLUMN turns.sweeps IS 'how often it was driven again since it last moved; the next time is later';
ALTER TABLE leases ADD COLUMN slots integer NOT NULL DEFAULT 0;
COMMENT ON COLUMN leases.slots IS 'messages it can be given at once: none while it hears no bus, and a lease after';
ALTER TABLE turns ADD COLUMN retried boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN turns.retried IS 'accepted as a retry without a key: a first try that comes later is attached to it';
CREATE FUNCTION last_place(turn uuid, place bigint) RETURNS bigint LANGUAGE sql STABLE
    RETURN coalesce((SELECT max(messages.ord) FROM messages WHERE messages.turn_id = turn), place << 20);
COMMENT ON FUNCTION last_place IS 'where a turn''s messages end: turns in their order, each with room for a million';
UPDATE messages SET ord = placed.ord FROM (
    SELECT messages.id, (turns.ord << 20) + row_number() OVER (PARTITION BY turns.id ORDER BY messages.ord) AS ord
    FROM messages JOIN turns ON turns.id = messages.turn_id
) AS placed WHERE messages.id = placed.id;
ALTER TABLE messages ALTER COLUMN ord DROP IDENTITY;
COMMENT ON COLUMN messages.ord IS 'its place in its session: last_place says which comes next in its turn';
CREATE TABLE refusals (
    question uuid PRIMARY KEY,
    refused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE refusals IS 'requests refused for how things stood: no copy of theirs is to be accepted; kept an hour';
CREATE INDEX refusals_by_age ON refusals (refused_at);
CREATE INDEX retried_turns_of_user ON turns (user_id, created_at) WHERE retried;
CREATE INDEX queued_turns_of_user ON turns (user_id, ord) WHERE state = 'queued';
CREATE INDEX turns_awaiting_approval ON turns (session_id) WHERE state = 'awaiting_approval';
CREATE INDEX ended_turns ON turns USING brin (finished_at) WITH (autosummarize = on);
CREATE INDEX running_turns_of_user ON turns (user_id)
    WHERE state IN ('accepted', 'prepared', 'generating', 'calling_tools');
"""


def upgrade() -> None:
    """Make the columns and indexes."""
    op.execute(UP)


def downgrade() -> None:
    """Going back is a new revision: data written since cannot be un-written."""
    raise NotImplementedError
