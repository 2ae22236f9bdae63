"""`python -m ops lag`: what waits, for how long, and who is there to do it."""

from __future__ import annotations

import msgspec
import pytest

from ops.runtime import topology
from ops.runtime.bus import Bus
from schemas import codec, subjects
from schemas.ids import new_id
from schemas.turns import TurnPrepared
from tests.ops.commands.conftest import Ops
from tests.workers.storage.rows import add_session, add_turn, add_user
from workers.storage.database import Database
from workers.storage.upkeep import Upkeep


async def wait_for_generation(bus: Bus, count: int) -> None:
    for _ in range(count):
        event = codec.encode(TurnPrepared(turn_id=new_id()))
        await bus.store(subjects.turn_event(subjects.TURN_PREPARED, 0), event, msg_id=None)


async def test_an_idle_system_shows_its_workers_and_no_work(ops: Ops, database: Database, bus: Bus) -> None:
    await Upkeep(database).renew_lease(new_id(), "generation", -1, slots=64)
    await Upkeep(database).renew_lease(new_id(), "generation", 30, slots=64)
    await Upkeep(database).renew_lease(new_id(), "generation", 30, slots=64)
    said = await ops("lag")
    assert (said.status, said.err) == (0, "")
    [row] = [line.split() for line in said.out.splitlines() if line.startswith("generation")]
    assert row == ["generation", "2", "1", "128", "0", "0", "-"]
    assert "No turn waits or runs." in said.out
    assert "Dead letters: 0" in said.out


async def test_work_that_waits_is_counted_and_dated(ops: Ops, database: Database, bus: Bus) -> None:
    await Upkeep(database).renew_lease(new_id(), "generation", 30)
    await wait_for_generation(bus, 3)
    said = await ops("lag", "--json")
    assert said.status == 0
    [stage] = [each for each in msgspec.json.decode(said.out)["stages"] if each["stage"] == "generation"]
    assert (stage["backlog"], stage["in_flight"]) == (3, 0)
    assert 0 <= stage["oldest"] < 30


async def test_work_without_a_living_worker_is_an_exit_code_of_its_own(ops: Ops, database: Database, bus: Bus) -> None:
    await wait_for_generation(bus, 1)
    said = await ops("lag")
    assert said.status == 4
    [line] = [line for line in said.out.splitlines() if line.startswith("generation")]
    assert line.endswith("nobody is there")


async def test_turns_that_have_not_ended_are_counted_by_state(ops: Ops, database: Database, bus: Bus) -> None:
    user_id = await add_user(database)
    session_id = await add_session(database, user_id)
    for state in ("generating", "queued", "queued", "completed"):
        await add_turn(database, user_id, session_id, state=state)
    said = await ops("lag", "--json")
    counted = {each["state"]: each["turns"] for each in msgspec.json.decode(said.out)["turns"]}
    assert counted == {"generating": 1, "queued": 2}


async def test_a_server_without_consumers_is_told_as_such(ops: Ops, database: Database, bus: Bus) -> None:
    js = bus.client.jetstream()
    await js.delete_consumer("TURNS_v1", "generation")
    try:
        said = await ops("lag")
    finally:
        await topology.ensure(bus, lease=10)
    assert said.status == 1
    assert "python -m ops release" in said.err


@pytest.mark.parametrize("command", ["lag", "dead", "turn"])
async def test_arguments_that_make_no_sense_are_refused(ops: Ops, command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        await ops(command, "--nonsense")
    assert ended.value.code == 2
