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
COMMENT ON COLUMN leases.slots IS 'messages this process works on at once: what operators see as capacity';
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
