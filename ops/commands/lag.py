"""Show what waits: per stage backlog, in flight, oldest message, workers and slots; and turns that have not ended."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from functools import partial

import msgspec
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from ops.commands._servers import Addresses, CannotRun, bus, carried_out, database
from ops.commands._streams import read
from ops.commands._tables import span, table
from schemas.streams import CONSUMERS, DEAD_LETTERS, TURNS, ConsumerSpec
from workers.storage.operation import Operation, StageWorkers, StateCount

STALLED = 4
"""The exit code where work waits for a stage of which no process lives."""
WITHOUT_QUEUE = ("records",)
"""Stages that answer questions and consume no stream."""


class StageLag(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one stage. `oldest`: seconds since the oldest message that is not done was stored."""

    stage: str
    backlog: int = 0
    in_flight: int = 0
    oldest: float | None = None
    slots: int = 0
    workers: int = 0
    silent: int = 0

    @property
    def stalled(self) -> bool:
        """Whether work waits and nobody is there to do it."""
        return self.workers == 0 and self.backlog + self.in_flight > 0


class Lag(msgspec.Struct, frozen=True, kw_only=True):
    """The whole picture."""

    stages: list[StageLag]
    turns: list[StateCount]
    dead_letters: int


def main(argv: list[str]) -> int:
    """0 when shown, 1 when it could not be looked up, 4 where work waits for a stage that has no living process."""
    parser = argparse.ArgumentParser(prog="python -m ops lag", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for programs")
    return carried_out("lag", partial(_run, parser.parse_args(argv)))


async def _run(given: argparse.Namespace, addresses: Addresses) -> int:
    async with bus(addresses.nats_url) as client, database(addresses.database_url) as opened:
        operation = Operation(opened)
        workers = {each.stage: each for each in await operation.workers()}
        nobody = StageWorkers(stage="", alive=0, silent=0, slots=0)
        stages = [await _stage(client, spec, workers.get(spec.stage, nobody)) for spec in CONSUMERS]
        for name in WITHOUT_QUEUE:
            there = workers.get(name, nobody)
            stages.append(StageLag(stage=name, workers=there.alive, silent=there.silent))
        dead = (await client.jetstream().stream_info(DEAD_LETTERS.name)).state.messages
        lag = Lag(stages=stages, turns=await operation.standing(), dead_letters=dead)
    print(msgspec.json.encode(lag).decode() if given.json else shown(lag))
    return STALLED if any(stage.stalled for stage in stages) else 0


async def _stage(client: Client, spec: ConsumerSpec, there: StageWorkers) -> StageLag:
    try:
        info = await client.jetstream().consumer_info(TURNS.name, spec.stage)
    except NotFoundError:
        raise CannotRun(f"NATS has no consumer {spec.stage}: run `python -m ops release` first") from None
    oldest = await read(client, TURNS.name, spec.filter_subject, limit=1)
    return StageLag(
        stage=spec.stage,
        backlog=info.num_pending or 0,
        in_flight=info.num_ack_pending or 0,
        oldest=(datetime.now(UTC) - oldest[0].at).total_seconds() if oldest else None,
        slots=there.slots,
        workers=there.alive,
        silent=there.silent,
    )


def shown(lag: Lag) -> str:
    """Two tables and a line."""
    head = ("STAGE", "WORKERS", "SILENT", "SLOTS", "IN FLIGHT", "BACKLOG", "OLDEST", "")
    stages = [
        (each.stage, each.workers, each.silent, *_numbers(each), "nobody is there" if each.stalled else "")
        for each in lag.stages
    ]
    turns = [(each.state, each.turns, span(each.oldest)) for each in lag.turns]
    return "\n\n".join(
        [
            table(head, stages),
            table(("TURNS", "COUNT", "OLDEST"), turns) if turns else "No turn waits or runs.",
            f"Dead letters: {lag.dead_letters}" + (" (python -m ops dead list)" if lag.dead_letters else ""),
        ]
    )


def _numbers(stage: StageLag) -> tuple[object, ...]:
    if stage.stage in WITHOUT_QUEUE:
        return ("-",) * 4
    return stage.slots, stage.in_flight, stage.backlog, span(stage.oldest)
