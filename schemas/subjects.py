"""Every NATS subject, spelled once. The shard token lets a stream be split without renaming anything."""

from __future__ import annotations

import zlib

TURN_REQUESTED = "turn.requested"
TURN_PREPARED = "turn.prepared"
TURN_TOOLS_CALLED = "turn.tools_called"
TURN_COMPLETED = "turn.completed"
DEAD = "dead"

CALLERS_REVOKED = "callers.revoked"
"""Broadcast without storage: forget what you know of this key or user."""


ENGINES_HEALTH = "engines.health"
"""A question to the generation workers: how are the model servers? Answered with EnginesHealth."""


def shard_of(session_id: str, shards: int) -> int:
    """The shard of a session: the same on every process for the same count of shards."""
    return zlib.crc32(session_id.encode()) % shards


def turn_event(event: str, shard: int) -> str:
    """`turn.requested.0`: where one stage's work of one shard waits."""
    return f"{event}.{shard}"


def every_shard(event: str) -> str:
    """`turn.requested.*`: what a stage's durable consumer filters by."""
    return f"{event}.*"


def reply(shard: int, turn_id: str) -> str:
    """Where a turn's frames are published. Captured by the stream REPLIES."""
    return f"reply.{shard}.{turn_id}"


def live(shard: int, turn_id: str) -> str:
    """Where REPLIES republishes what it has stored: the subject that readers listen on."""
    return f"live.{shard}.{turn_id}"


REPLIES_CAPTURED = "reply.*.*"
REPLIES_REPUBLISHED = "live.{{wildcard(1)}}.{{wildcard(2)}}"


def dead(stage: str) -> str:
    """Where the dead letters of a stage are kept."""
    return f"{DEAD}.{stage}"


def verdict(gateway_id: str, turn_id: str) -> str:
    """Private to one gateway: whether its turn was accepted."""
    return f"verdict.{gateway_id}.{turn_id}"


def stored(gateway_id: str, turn_id: str) -> str:
    """Private to one gateway: JetStream's receipt for the published turn."""
    return f"stored.{gateway_id}.{turn_id}"


def record_query(name: str) -> str:
    """`records.<name>`: a question or command for the records worker, answered on the reply subject."""
    return f"records.{name}"


def cancel(turn_id: str) -> str:
    """Broadcast to whoever owns the turn: stop."""
    return f"cancel.{turn_id}"


EVERY_CANCEL = "cancel.*"


def cancelled_turn(subject: str) -> str:
    """The turn that a heard `cancel.<turn_id>` is about."""
    return subject.partition(".")[2]


def wanted(turn_id: str) -> str:
    """A reader to whoever owns the turn: a frame is missing that the stream does not have; send a snapshot."""
    return f"wanted.{turn_id}"


EVERY_WANTED = "wanted.*"


def listeners(turn_id: str) -> str:
    """Answered by every gateway with an open reader of this turn; "no responders" means nobody listens."""
    return f"listeners.{turn_id}"
