"""A small world in which all went well, and ways to break it."""

from __future__ import annotations

from typing import Any

import msgspec

from ops.drills.audit import Violation, World, audit
from ops.drills.clients import Chat
from ops.drills.ledger import KEYED, ONCE, Effects
from workers.storage.evidence import Evidence, StoredCall, StoredMessage, StoredSession, StoredTurn

SESSION = "s1"
TEXTS = {"t1": "The first reply.", "t2": "The second reply."}


def chat(number: int, **about: Any) -> Chat:
    """A chat whose client heard its turn out."""
    turn_id = f"t{number}"
    fields = {"turn_id": turn_id, "text": TEXTS.get(turn_id, ""), "state": "completed", "tokens": 4, **about}
    return Chat(number=number, session_id=SESSION, gap_ms=1, **fields)


def turn(number: int, **about: Any) -> StoredTurn:
    """A turn that completed."""
    fields = {"state": "completed", "attempts": 1, "ended": True, "fault": "", "remembered": True, **about}
    return StoredTurn(id=f"t{number}", session_id=SESSION, ord=number, **fields)


def message(ord: int, turn_id: str, role: str, text: str = "", **about: Any) -> StoredMessage:
    """A stored message."""
    fields = {"calls": False, "partial": False, "choice": 0, "answers": "", **about}
    return StoredMessage(id=f"m{ord}", session_id=SESSION, turn_id=turn_id, ord=ord, role=role, text=text, **fields)


def call(name: str, entry: str, status: str = "done") -> StoredCall:
    """A call of a drill's tool in the first turn."""
    arguments = msgspec.json.encode({"entry": entry}).decode()
    return StoredCall(id=f"c-{entry}", turn_id="t1", name=name, arguments=arguments, status=status)


def effects(kind: str, entry: str, effects: int = 1, requests: int = 1) -> Effects:
    """What the ledger counted."""
    return Effects(entry=entry, kind=kind, effects=effects, requests=requests)


MESSAGES = [
    message(1, "t1", "user"),
    message(2, "t1", "assistant", calls=True),
    message(3, "t1", "tool", "It is written.", answers="call-1"),
    message(4, "t1", "tool", "It is written.", answers="call-2"),
    message(5, "t1", "assistant", TEXTS["t1"]),
    message(6, "t2", "user"),
    message(7, "t2", "assistant", TEXTS["t2"]),
]
EVIDENCE = Evidence(
    turns=[turn(1), turn(2)],
    messages=MESSAGES,
    calls=[call("ledger_keyed", "a"), call("ledger_once", "b"), call("clock", "c")],
    sessions=[StoredSession(id=SESSION, counted=7)],
)


def world(**changes: Any) -> World:
    """The world in which two chats went well, but for these fields of it or of its evidence."""
    stored = {name: changes.pop(name) for name in EVIDENCE.__struct_fields__ if name in changes}
    sound: dict[str, Any] = {
        "chats": [chat(1), chat(2)],
        "evidence": msgspec.structs.replace(EVIDENCE, **stored),
        "effects": [effects(KEYED, "a", requests=3), effects(ONCE, "b")],
        "left": {"TURNS": 0},
    }
    return World(**{**sound, **changes})


def kinds(**changes: Any) -> list[str]:
    """Which promises an audit finds broken in a world so changed."""
    return [violation.kind for violation in found(**changes)]


def found(**changes: Any) -> list[Violation]:
    """What an audit finds in a world so changed."""
    return audit(world(**changes))
