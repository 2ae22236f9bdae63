"""Asks for a turn and waits for the verdict on it: accepted means that its row is committed."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from ops.runtime.bus import STREAM_FULL, Bus, BusUnavailable, read_receipt
from schemas import codec, subjects
from schemas.faults import EngineOverloaded, StorageUnavailable, fault_from
from schemas.subjects import TURN_REQUESTED, shard_of, turn_event
from schemas.turns import Accepted, Refused, TurnRequested, Verdict

log = structlog.get_logger()

AGAIN_AFTER = 2.0
"""Seconds without a verdict after which the turn is published again; taking it in twice changes nothing."""
LAST_MOMENT = 0.5
"""Seconds beyond the budget in which a verdict that is already on its way is still heard."""


class Admission:
    """One gateway's questions under way. All verdicts come on one subject space that only this process listens to."""

    def __init__(self, bus: Bus, gateway_id: str, shards: int) -> None:
        self._bus, self._gateway_id, self._shards = bus, gateway_id, shards
        self._waiting: dict[str, list[asyncio.Future[Verdict]]] = {}
        self._decode = codec.decoder(Verdict).decode

    async def open(self) -> None:
        """Listen for verdicts and for JetStream's receipts."""
        await self._bus.listen(subjects.verdict(self._gateway_id, "*"), self._hear_verdict)
        await self._bus.listen(subjects.stored(self._gateway_id, "*"), self._hear_receipt)

    async def ask(self, turn: TurnRequested, budget: float) -> Accepted:
        """Publish the turn until there is a verdict.

        Raises the fault it was refused with; EngineOverloaded where the stream is full; StorageUnavailable after
        `budget` seconds. In the last two cases no worker takes the turn any more.
        """
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(turn.turn_id, []).append(verdict)
        try:
            found = await self._until_verdict(turn, verdict, budget)
        finally:
            waiting = self._waiting[turn.turn_id]
            waiting.remove(verdict)
            if not waiting:
                del self._waiting[turn.turn_id]
        if isinstance(found, Refused):
            raise fault_from(found.fault)
        return found

    async def _until_verdict(self, turn: TurnRequested, verdict: asyncio.Future[Verdict], budget: float) -> Verdict:
        session_id = turn.request.cozy.session_id if turn.request.cozy else None
        subject = turn_event(TURN_REQUESTED, shard_of(session_id or turn.turn_id, self._shards))
        receipt = subjects.stored(self._gateway_id, turn.turn_id)
        data = codec.encode(turn)
        loop = asyncio.get_running_loop()
        end, tries = loop.time() + budget, 0
        while (left := end - loop.time()) > 0:
            try:
                # A fresh message id each time: the stream may have lost, or be swallowing, the one before.
                await self._bus.publish(
                    subject, data, reply=receipt, msg_id=f"{turn.turn_id}.{turn.request_id}.{tries}"
                )
            except BusUnavailable as error:
                log.warning("turn_not_published", error=str(error))
            await asyncio.wait((verdict,), timeout=min(AGAIN_AFTER, left))
            if verdict.done():
                return verdict.result()
            tries += 1
        await asyncio.wait((verdict,), timeout=LAST_MOMENT)
        if verdict.done():
            return verdict.result()
        log.warning("no_verdict", tries=tries)
        raise StorageUnavailable("The turn could not be stored in time, and was not accepted. Try again shortly.")

    def _hear_verdict(self, subject: str, data: bytes) -> None:
        self._settle(subject, self._decode(data))

    def _hear_receipt(self, subject: str, data: bytes) -> None:
        try:
            error = read_receipt(data).error
        except msgspec.DecodeError:
            return
        if error is None:
            return
        code = error.get("err_code")
        log.warning("turn_refused_by_stream", err_code=code)
        if code in STREAM_FULL:
            turn_id = subject.rpartition(".")[2]
            self._settle(subject, Refused(turn_id=turn_id, fault=EngineOverloaded().record))

    def _settle(self, subject: str, verdict: Verdict) -> None:
        for waiting in self._waiting.get(subject.rpartition(".")[2], ()):
            if not waiting.done():
                waiting.set_result(verdict)
