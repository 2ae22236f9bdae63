"""Sends a turn's event to the stage that does its next step: the same event whoever sends it, and may send it again."""

from __future__ import annotations

from ops.runtime.bus import STORE_BUDGET, Bus
from schemas import codec, subjects
from schemas.turns import TurnPrepared, TurnState, TurnToolsCalled


async def say_prepared(
    bus: Bus, turn_id: str, round: int, shard: int, *, msg_id: str = "", budget: float = STORE_BUDGET
) -> None:
    """To generation. `msg_id` where the usual one would be swallowed as a repeat. Raises BusUnavailable."""
    event = codec.encode(TurnPrepared(turn_id=turn_id, round=round))
    subject = subjects.turn_event(subjects.TURN_PREPARED, shard)
    await bus.store(subject, event, msg_id=msg_id or f"{turn_id}.prepared.{round}", budget=budget)


async def say_tools_called(
    bus: Bus, turn_id: str, round: int, shard: int, *, msg_id: str = "", budget: float = STORE_BUDGET
) -> None:
    """To tool_execution. `msg_id` where the usual one would be swallowed as a repeat. Raises BusUnavailable."""
    event = codec.encode(TurnToolsCalled(turn_id=turn_id, round=round))
    subject = subjects.turn_event(subjects.TURN_TOOLS_CALLED, shard)
    await bus.store(subject, event, msg_id=msg_id or f"{turn_id}.tools.{round}", budget=budget)


async def say_again(
    bus: Bus, state: str, turn_id: str, round: int, shard: int, *, msg_id: str, budget: float = STORE_BUDGET
) -> None:
    """To whichever of the two a turn in this state waits for, or is in the hands of. Raises BusUnavailable."""
    say = say_tools_called if state == TurnState.CALLING_TOOLS else say_prepared
    await say(bus, turn_id, round, shard, msg_id=msg_id, budget=budget)
