"""Look after dead letters, the messages that stages set aside: `dead list`, `dead show N`, `dead redrive N`."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import msgspec
from nats.aio.client import Client

from ops.commands._servers import NATS_SECONDS, NOT_FOUND, Addresses, bus, carried_out, complain, database
from ops.commands._streams import EVENTS, Letter, Stored, letter_of, read
from ops.commands._tables import stamp, table
from schemas import subjects
from schemas.ids import is_id, new_id
from schemas.streams import DEAD_LETTERS
from schemas.turns import ENDS
from workers.storage.operation import Operation

NOTHING_TO_DRIVE = 5
"""The exit code of a redrive that would change nothing, or is not possible."""
AFTER_THE_END = "memory_writeback"
"""The one stage whose work begins when the turn has ended."""
MOST = 10_000


def main(argv: list[str]) -> int:
    """0 when done, 1 when it could not run, 2 for arguments that make no sense, 3 where there is no such letter, 5
    where sending it again would change nothing."""
    return carried_out("dead", partial(_run, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops dead", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="every dead letter, oldest first")
    listing.add_argument("--json", action="store_true", help="for programs")
    show = commands.add_parser("show", help="one letter, and how its turn stands")
    show.add_argument("number", type=int, metavar="N", help="as `dead list` shows it")
    show.add_argument("--content", action="store_true", help="with the message itself, which may hold a user's words")
    show.add_argument("--json", action="store_true", help="for programs")
    redrive = commands.add_parser("redrive", help="send it to its stage again, with all its tries, and remove it here")
    redrive.add_argument("number", type=int, metavar="N", help="as `dead list` shows it")
    return parser


async def _run(given: argparse.Namespace, addresses: Addresses) -> int:
    async with bus(addresses.nats_url) as client:
        if given.command == "list":
            return _list(await read(client, DEAD_LETTERS.name, f"{subjects.DEAD}.>", MOST), given.json)
        found = await read(client, DEAD_LETTERS.name, f"{subjects.DEAD}.>", limit=1, start=given.number)
        if not found or found[0].sequence != given.number:
            complain("dead", f"there is no dead letter {given.number}; `dead list` shows them")
            return NOT_FOUND
        async with database(addresses.database_url) as opened:
            operation = Operation(opened)
            if given.command == "show":
                return await _show(operation, found[0], given)
            return await _redrive(client, operation, letter_of(found[0]), found[0].data)


def _list(found: list[Stored], as_json: bool) -> int:
    letters = [letter_of(stored) for stored in found]
    if as_json:
        print(msgspec.json.encode([_told(letter) for letter in letters]).decode())
    else:
        rows = [(each.sequence, each.stage, stamp(each.at), each.turn_id or "unreadable") for each in letters]
        print(table(("N", "STAGE", "SET ASIDE", "TURN"), rows) if rows else "There are no dead letters.")
    return 0


async def _show(operation: Operation, stored: Stored, given: argparse.Namespace) -> int:
    letter = letter_of(stored)
    told = _told(letter) | {"turn_state": await _state(operation, letter)}
    if given.content:
        told["content"] = letter.event if letter.event is not None else stored.data
    if given.json:
        print(msgspec.json.encode(told).decode())
        return 0
    content = told.pop("content", None)
    print("\n".join(f"{name:<12}{'-' if value is None else value}" for name, value in told.items()))
    if content is not None:
        print(f"content     {msgspec.json.encode(content).decode()}")
    return 0


async def _redrive(client: Client, operation: Operation, letter: Letter, data: bytes) -> int:
    problem = await _hindrance(operation, letter)
    if problem is not None:
        complain("dead", f"letter {letter.sequence} is left where it is: {problem}")
        return NOTHING_TO_DRIVE
    turn_id = str(letter.turn_id)
    life = await operation.turn(turn_id)
    assert life is not None
    await operation.forgive(turn_id)
    js = client.jetstream(timeout=NATS_SECONDS)
    subject = subjects.turn_event(EVENTS[letter.stage][0], life.shard)
    # A message id of its own: under the first one JetStream would take it for a repetition.
    await js.publish(subject, data, headers={"Nats-Msg-Id": f"{turn_id}.redriven.{new_id()}"})
    await js.delete_msg(DEAD_LETTERS.name, letter.sequence)
    print(f"Letter {letter.sequence} of turn {turn_id} is on its way to {letter.stage} again.")
    return 0


async def _hindrance(operation: Operation, letter: Letter) -> str | None:
    """Why sending this letter again is not possible or would change nothing."""
    if letter.stage not in EVENTS or letter.event is None:
        return f"no version of ours that is installed here can read it, so {letter.stage} could not either"
    state = await _state(operation, letter)
    if state is None:
        return "its turn was never accepted, and its client was told so"
    if state in ENDS and letter.stage != AFTER_THE_END:
        return f"its turn has ended as {state}, its client was told so, and an end is an end"
    return None


async def _state(operation: Operation, letter: Letter) -> str | None:
    if letter.turn_id is None or not is_id(letter.turn_id):
        return None
    life = await operation.turn(letter.turn_id)
    return life.state if life is not None else None


def _told(letter: Letter) -> dict[str, Any]:
    """What may be said of a letter without its words."""
    return {
        "number": letter.sequence,
        "stage": letter.stage,
        "set_aside": stamp(letter.at),
        "bytes": letter.bytes,
        "event": type(letter.event).__name__ if letter.event is not None else None,
        "turn_id": letter.turn_id,
        "round": getattr(letter.event, "round", None),
    }
