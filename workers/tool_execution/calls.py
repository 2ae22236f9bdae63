"""Runs one tool call: recorded before its effect and before its result is used."""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from ops.runtime import metrics
from workers.delivery import Fenced
from workers.engines.tools.port import RunnableTool, ToolFailed
from workers.engines.tools.shelf import ToolShelf
from workers.insisting import insist
from workers.stops import Stopped, unless
from workers.storage.turn_rows import AskedCall, ToolsClaimed
from workers.storage.turns import STOPPED_BEFORE, Turns

log = structlog.get_logger()

UNKNOWN_TOOL = "There is no tool of that name. Answer without it, or use one that you were given."
UNKNOWN_OUTCOME = "It is not known whether this call took effect: its worker was lost. Do not repeat it blindly."
NO_ANSWER = "It is not known whether this call took effect: the tool did not answer. Do not repeat it blindly."
BROKEN_OFF = "It is not known whether this call took effect: the user stopped this turn while it ran."


class CallRunner:
    """Runs calls, each within `timeout` seconds. A tool that fails is an answer to the model, no fault of the turn."""

    def __init__(self, turns: Turns, shelf: ToolShelf, timeout: float) -> None:
        self._turns, self._shelf, self._timeout = turns, shelf, timeout

    async def run(self, claimed: ToolsClaimed, call: AskedCall, allowed: frozenset[str], stop: asyncio.Event) -> str:
        """What the model is told. A call that is recorded as done is not run again; once the turn is stopped none
        begins, and one that runs is broken off.

        Raises Fenced where the turn has another owner.
        """
        if call.result is not None:
            return call.result
        tool = self._shelf.get(call.name) if call.name in allowed else None
        if tool is None:
            return await self._record(call, "denied", UNKNOWN_TOOL)
        start = await self._turns.start_call(claimed, call.id)
        if start is None:
            raise Fenced
        if start.stopped and call.status == "asked":
            return await self._record(call, "denied", STOPPED_BEFORE)
        if start.stopped or not (start.first or tool.idempotent):
            return await self._record(call, "unknown", BROKEN_OFF if start.stopped else UNKNOWN_OUTCOME)
        began = time.monotonic()
        status, answer = await self._attempt(tool, call, stop)
        metrics.tool_ran(call.name, time.monotonic() - began)
        return await self._record(call, status, answer)

    async def _attempt(self, tool: RunnableTool, call: AskedCall, stop: asyncio.Event) -> tuple[str, str]:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict)
            async with unless(stop), asyncio.timeout(self._timeout):
                return "done", await tool.run(arguments, call.id)
        except msgspec.DecodeError:
            return "failed", "The arguments are not a JSON object."
        except Stopped:
            return "unknown", BROKEN_OFF
        except ToolFailed as failure:
            return "failed", str(failure)
        except TimeoutError:
            return _unfinished(tool, f"The tool did not answer within {self._timeout:g} seconds.")
        except (Exception, asyncio.CancelledError) as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            log.error("tool_broke", tool=call.name, error=type(error).__name__)
            return _unfinished(tool, "The tool broke. Answer without it.")

    async def _record(self, call: AskedCall, status: str, answer: str) -> str:
        answer = answer.replace("\0", "")  # PostgreSQL keeps no U+0000
        await insist(lambda: self._turns.end_call(call.id, status, answer))
        metrics.tool_called(call.name if status != "denied" else "unknown", status)
        log.info("tool_called", tool=call.name if status != "denied" else None, outcome=status)
        return answer


def _unfinished(tool: RunnableTool, words: str) -> tuple[str, str]:
    """What became of a call that did not come to its end: of one whose effect must not be had twice, nobody knows."""
    return ("failed", words) if tool.idempotent else ("unknown", NO_ANSWER)
