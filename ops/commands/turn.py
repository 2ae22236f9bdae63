"""Show one turn's life on one screen, without any of its words: `turn ID`, or `turn ID --json`."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial

import msgspec
from nats.aio.client import Client

from ops.commands._servers import NOT_FOUND, Addresses, bus, carried_out, complain, database
from ops.commands._streams import EVENTS, Letter, dead_letters, read
from ops.commands._turn_page import Event, Frames, Moment, Page, shown
from schemas import codec, subjects
from schemas.ids import is_id
from schemas.replies import Delta, Failed, Fence, Finished, Frame, Progress, Snapshot, Start
from schemas.streams import REPLIES, TURNS
from workers.storage.operation import Operation, TurnLife

MOST_FRAMES = 200_000
MOST_EVENTS = 5_000
MOST_LETTERS = 5_000


def main(argv: list[str]) -> int:
    """0 when shown, 1 when it could not be looked up, 2 for arguments that make no sense, 3 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m ops turn", description=__doc__)
    parser.add_argument("turn_id", metavar="ID", help="as in `Location: /v1/turns/ID` and `cozy.turn_id`")
    parser.add_argument("--json", action="store_true", help="for programs")
    return carried_out("turn", partial(_run, parser.parse_args(argv)))


async def _run(given: argparse.Namespace, addresses: Addresses) -> int:
    if not is_id(given.turn_id):
        complain("turn", f"{given.turn_id} is no turn's id")
        return NOT_FOUND
    async with bus(addresses.nats_url) as client, database(addresses.database_url) as opened:
        operation = Operation(opened)
        life = await operation.turn(given.turn_id)
        events, all_events = await _events(client, given.turn_id)
        letters = [letter for letter in await dead_letters(client, MOST_LETTERS) if letter.turn_id == given.turn_id]
        if life is None:
            complain("turn", _unknown(given.turn_id, events, letters))
            return NOT_FOUND
        page = Page(
            life=life,
            calls=await operation.calls(life.id),
            messages=await operation.messages(life.id),
            frames=await _frames(client, life),
            events=events,
            all_events=all_events,
            dead_letters=[letter.sequence for letter in letters],
        )
    print(msgspec.json.encode(page).decode() if given.json else shown(page))
    return 0


def _unknown(turn_id: str, events: list[Event], letters: list[Letter]) -> str:
    where = [
        *(f"an event of it waits for {event.stage}" for event in events),
        *(f"dead letter {letter.sequence} is of it" for letter in letters),
    ]
    return f"there is no turn {turn_id}: none was accepted under this id" + "".join(f"; {each}" for each in where)


async def _frames(client: Client, life: TurnLife) -> Frames:
    """What the stream still has of the reply, without the words."""
    decode = codec.decoder(Frame).decode
    kinds: Counter[str] = Counter()
    moments: list[Moment] = []
    index, speaking = 0, 0
    for stored in await read(client, REPLIES.name, subjects.reply(life.shard, life.id), MOST_FRAMES):
        try:
            frame = decode(stored.data)
        except msgspec.DecodeError:
            kinds["unreadable"] += 1
            continue
        kinds[type(frame).__name__.lower()] += 1
        index = max(index, getattr(frame, "index", 0))
        if isinstance(frame, Delta) and frame.epoch != speaking:
            speaking = frame.epoch
            moments.append(Moment(at=stored.at, what=f"first words of epoch {frame.epoch}, event {frame.index}"))
        elif what := _said_by(frame):
            moments.append(Moment(at=stored.at, what=what))
    return Frames(kinds=dict(kinds), last_index=index, moments=moments)


def _said_by(frame: Frame) -> str:
    """What a frame means for the turn's life; nothing for plain words."""
    if isinstance(frame, Fence):
        return f"fenced off: epoch {frame.epoch} takes over"
    if isinstance(frame, Start):
        return f"attempt {frame.attempt} goes on behind event {frame.index}, epoch {frame.epoch}"
    if isinstance(frame, Progress):
        return f"tool {frame.tool}: {frame.state}"
    if isinstance(frame, Snapshot):
        return f"snapshot of {len(frame.deltas)} events"
    if isinstance(frame, Finished):
        return f"end told: {frame.state}"
    return f"end told: {frame.state}, {frame.fault.code}" if isinstance(frame, Failed) else ""


async def _events(client: Client, turn_id: str) -> tuple[list[Event], bool]:
    """The turn's events that a stage has not acknowledged, and whether all that wait could be looked at."""
    found, whole = [], True
    for stage, (event, kind) in EVENTS.items():
        waiting = await read(client, TURNS.name, subjects.every_shard(event), MOST_EVENTS)
        whole = whole and len(waiting) < MOST_EVENTS
        for stored in waiting:
            try:
                decoded = codec.decoder(kind).decode(stored.data)
            except msgspec.DecodeError:
                continue
            if decoded.turn_id == turn_id:
                round_ = getattr(decoded, "round", None)
                found.append(Event(stage=stage, at=stored.at, sequence=stored.sequence, round=round_))
    return found, whole
