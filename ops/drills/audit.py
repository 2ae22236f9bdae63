"""Pure: what the clients saw, what is stored and what the ledger counted, held against each other."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec

from ops.drills.clients import Chat
from ops.drills.ledger import ONCE, Effects
from workers.storage.evidence import Evidence, StoredMessage, StoredTurn

LOST = "lost"
"""Accepted, and without its reply: no row, no end, an end as failed, or an end that its client was never told."""
DOUBLE_ROWS = "double rows"
"""A row too many: a second turn of one request, a second reply or question of one turn, a message counted twice."""
DOUBLE_EFFECTS = "double effects"
"""A tool did it twice."""
MISSING_EFFECTS = "missing effects"
"""A call is recorded as done, and the ledger has nothing of it."""
DIFFERS = "client != stored"
"""A client saw another text than the one that is stored."""
ORDER = "order violations"
"""A session's turns are mixed, or answered in another order than they came in."""
UNSEEN = "not seen"
"""A turn's model was not given all that was said in its session before."""
LEFT = "left over"
"""What should be gone: messages in a work queue or among the dead letters, parts of replies, turns memory missed."""
KINDS = (LOST, DOUBLE_ROWS, DOUBLE_EFFECTS, MISSING_EFFECTS, DIFFERS, ORDER, UNSEEN, LEFT)

SAW = re.compile(r"Before this I saw (\d+) message")
"""How the scripted model says it."""


class Violation(msgspec.Struct, frozen=True, order=True):
    """One broken promise: which, and where."""

    kind: str
    what: str


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an audit looks at. `left`: messages that each work queue still holds, by stream."""

    chats: Sequence[Chat]
    evidence: Evidence
    effects: Sequence[Effects] = ()
    left: dict[str, int] = {}


def audit(world: World) -> list[Violation]:
    """Every broken promise, sorted. A chat that was refused before it was accepted broke none."""
    found = [
        *_lost(world),
        *_double_turns(world),
        *_double_messages(world.evidence),
        *_effects(world),
        *_differing(world),
        *_disordered(world.evidence),
        *_unseen(world),
        *_left_over(world),
    ]
    return sorted(set(found))


def interrupted(world: World) -> list[StoredTurn]:
    """Turns that ended honestly in the middle: no violation, but each has to be explained."""
    return [turn for turn in world.evidence.turns if turn.state == "interrupted"]


def _lost(world: World) -> Iterator[Violation]:
    known = {turn.id: turn for turn in world.evidence.turns}
    for chat in world.chats:
        turn = known.get(chat.turn_id)
        if chat.turn_id and turn is None:
            yield Violation(LOST, f"{_name(chat)}: no row")
        elif turn is not None and turn.ended and turn.state != chat.state:
            yield Violation(LOST, f"{_name(chat)}: is {turn.state}, its client was told {chat.state or 'nothing'}")
    for turn in known.values():
        if not turn.ended:
            yield Violation(LOST, f"turn {turn.id}: still {turn.state}")
        elif turn.state == "failed":
            yield Violation(LOST, f"turn {turn.id}: failed with {turn.fault}")


def _double_turns(world: World) -> Iterator[Violation]:
    for turn_id, count in Counter(chat.turn_id for chat in world.chats if chat.turn_id).items():
        if count > 1:
            yield Violation(DOUBLE_ROWS, f"turn {turn_id} answered {count} requests")
    # One whose client was told of no turn may have one: it was accepted, and its client gave up before it heard.
    nameless = sum(not chat.turn_id for chat in world.chats)
    strangers = {turn.id for turn in world.evidence.turns} - {chat.turn_id for chat in world.chats}
    if len(strangers) > nameless:
        yield Violation(DOUBLE_ROWS, f"{len(strangers)} turns that nobody asked for: {' '.join(sorted(strangers)[:3])}")


def _double_messages(evidence: Evidence) -> Iterator[Violation]:
    seen = Counter((said.turn_id, _role(said)) for said in evidence.messages if said.turn_id)
    for (turn_id, role), count in seen.items():
        if count > 1:
            yield Violation(DOUBLE_ROWS, f"turn {turn_id}: {count} x {role}")
    stored = Counter(said.session_id for said in evidence.messages)
    for session in evidence.sessions:
        if session.counted > stored[session.id]:
            counts = f"{session.counted} messages counted of {stored[session.id]}"
            yield Violation(DOUBLE_ROWS, f"session {session.id}: {counts}")


def _role(said: StoredMessage) -> str:
    """What a turn may have once: one question, one reply for each choice, one answer for each call."""
    match said.role:
        case "tool":
            return f"answer to {said.answers}"
        case "assistant" if said.calls:
            return f"calls {said.id}"
        case "assistant":
            return f"reply {said.choice}"
    return said.role


def _effects(world: World) -> Iterator[Violation]:
    done = {(one.entry, one.kind): one for one in world.effects}
    for one in world.effects:
        if one.effects > 1:
            yield Violation(DOUBLE_EFFECTS, f"entry {one.entry}: {one.effects} effects ({one.kind})")
    for call in world.evidence.calls:
        kind = call.name.removeprefix("ledger_")
        if kind == call.name or call.status != "done":
            continue
        entry = msgspec.json.decode(call.arguments)["entry"]
        if (entry, kind) not in done:
            yield Violation(MISSING_EFFECTS, f"turn {call.turn_id}: entry {entry} ({kind}) is called done")


def unknown_outcomes(world: World) -> int:
    """Calls whose effect may or may not have happened, and that are not repeated: the price of at most once."""
    return sum(call.status == "unknown" and call.name == f"ledger_{ONCE}" for call in world.evidence.calls)


def _differing(world: World) -> Iterator[Violation]:
    stored: defaultdict[str, str] = defaultdict(str)
    for said in world.evidence.messages:
        if said.role == "assistant" and said.choice == 0:
            stored[said.turn_id] += said.text
    for chat in world.chats:
        text = stored[chat.turn_id]
        # Who was not told the end may have seen less of it.
        same = chat.text == text if chat.state in ("completed", "cancelled") else text.startswith(chat.text)
        if chat.turn_id and not same:
            yield Violation(DIFFERS, f"{_name(chat)}: {_first_difference(chat.text, text)}")


def _first_difference(seen: str, stored: str) -> str:
    """Where two texts part, without quoting them."""
    at = next((i for i, (a, b) in enumerate(zip(seen, stored, strict=False)) if a != b), min(len(seen), len(stored)))
    return f"{len(seen)} characters seen, {len(stored)} stored, alike up to {at}"


def _disordered(evidence: Evidence) -> Iterator[Violation]:
    place = {turn.id: turn.ord for turn in evidence.turns}
    for session_id, messages in _by_session(evidence.messages):
        blocks = [turn_id for turn_id, _ in groupby(said.turn_id for said in messages if said.turn_id in place)]
        if len(set(blocks)) < len(blocks):
            yield Violation(ORDER, f"session {session_id}: the messages of its turns are mixed")
        elif blocks != sorted(blocks, key=place.__getitem__):
            yield Violation(ORDER, f"session {session_id}: its turns were answered out of turn")


def _unseen(world: World) -> Iterator[Violation]:
    """Holds what models that were asked to (`tokens` 0) say of their session against what is stored before them."""
    asked = {chat.turn_id for chat in world.chats if not chat.tokens and chat.state == "completed"}
    for _, messages in _by_session(world.evidence.messages):
        for said in messages:
            if said.turn_id not in asked or said.role != "assistant" or said.calls:
                continue
            before = next(i for i, other in enumerate(messages) if other.turn_id == said.turn_id)
            told = SAW.search(said.text)
            saw = int(told[1]) if told else 0
            if saw != before:
                yield Violation(UNSEEN, f"turn {said.turn_id}: its model saw {saw} messages of {before}")


def _by_session(messages: Iterable[StoredMessage]) -> Iterator[tuple[str, list[StoredMessage]]]:
    in_order = sorted(messages, key=lambda said: (said.session_id, said.ord))
    return ((session, list(said)) for session, said in groupby(in_order, key=lambda said: said.session_id))


def _left_over(world: World) -> Iterator[Violation]:
    for stream, count in world.left.items():
        if count:
            yield Violation(LEFT, f"{count} messages in {stream}")
    for said in world.evidence.messages:
        if said.partial:
            yield Violation(LEFT, f"turn {said.turn_id}: a part of a reply")
    for turn in world.evidence.turns:
        if turn.state == "completed" and not turn.remembered:
            yield Violation(LEFT, f"turn {turn.id}: memory was not told")
    for call in world.evidence.calls:
        if call.status in ("asked", "started"):
            yield Violation(LEFT, f"turn {call.turn_id}: a call is still {call.status}")


def _name(chat: Chat) -> str:
    return f"chat {chat.number} (turn {chat.turn_id})"
