"""The JetStream streams and consumers, as data. `python -m ops release` makes the server match this file.

Names carry a version: a change that a stream cannot take in place gets a new name and a move, not a surprise.
"""

from __future__ import annotations

import msgspec

from schemas import subjects

HOUR = 3600.0
DAY = 24 * HOUR
GIGABYTE = 1 << 30


class StreamSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. Ages in seconds, sizes in bytes. Every stream has an age limit: nothing stays on the bus for ever."""

    name: str
    subjects: tuple[str, ...]
    work_queue: bool = False
    max_age: float
    max_bytes: int
    refuse_when_full: bool
    """True: publishers are told. False: the oldest messages go."""
    duplicate_window: float = 120.0
    synced_lazily: bool = False
    """`persist_mode: async`: acknowledged before it is on disk. For what PostgreSQL also knows."""
    republish_from: str | None = None
    republish_to: str | None = None


class ConsumerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's durable pull consumer. `max_deliver` is always unlimited: giving up is ours to decide."""

    stage: str
    filter_subject: str


TURNS = StreamSpec(
    name="TURNS_v1",
    subjects=(
        subjects.every_shard(subjects.TURN_REQUESTED),
        subjects.every_shard(subjects.TURN_PREPARED),
        subjects.every_shard(subjects.TURN_TOOLS_CALLED),
        subjects.every_shard(subjects.TURN_COMPLETED),
    ),
    work_queue=True,
    max_age=7 * DAY,
    max_bytes=2 * GIGABYTE,
    refuse_when_full=True,
)
REPLIES = StreamSpec(
    name="REPLIES_v1",
    subjects=(subjects.REPLIES_CAPTURED,),
    max_age=HOUR,
    max_bytes=2 * GIGABYTE,
    refuse_when_full=False,
    synced_lazily=True,
    republish_from=subjects.REPLIES_CAPTURED,
    republish_to=subjects.REPLIES_REPUBLISHED,
)
DEAD_LETTERS = StreamSpec(
    name="DEAD_v1",
    subjects=(f"{subjects.DEAD}.>",),
    max_age=30 * DAY,
    max_bytes=GIGABYTE,
    refuse_when_full=False,
    duplicate_window=600.0,
)
STREAMS = (TURNS, REPLIES, DEAD_LETTERS)

CONTEXT_FETCH = ConsumerSpec(stage="context_fetch", filter_subject=subjects.every_shard(subjects.TURN_REQUESTED))
GENERATION = ConsumerSpec(stage="generation", filter_subject=subjects.every_shard(subjects.TURN_PREPARED))
TOOL_EXECUTION = ConsumerSpec(stage="tool_execution", filter_subject=subjects.every_shard(subjects.TURN_TOOLS_CALLED))
MEMORY_WRITEBACK = ConsumerSpec(stage="memory_writeback", filter_subject=subjects.every_shard(subjects.TURN_COMPLETED))
CONSUMERS = (CONTEXT_FETCH, GENERATION, TOOL_EXECUTION, MEMORY_WRITEBACK)
MAX_ACK_PENDING = 100_000
"""Far above any fleet: workers' credits limit what is in flight, never the server."""
