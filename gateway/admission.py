"""Asks for a turn and waits for the verdict on it: accepted means that its row is committed."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from gateway.storage_clock import StorageClock
from ops.runtime.bus import STREAM_FULL, Bus, BusUnavailable, TooLarge, read_receipt
from schemas import codec, subjects
from schemas.faults import BodyTooLarge, EngineOverloaded, StorageUnavailable, fault_from
from schemas.ids import new_id
from schemas.subjects import TURN_REQUESTED, shard_of, turn_event
from schemas.turns import Accepted, Refused, TurnRequested, Verdict

log = structlog.get_logger()

AGAIN_AFTER = 2.0
"""Seconds without a verdict after which the turn is published again; taking it in twice changes nothing."""
LAST_MOMENT = 2.0
"""Seconds beyond the budget in which the verdict on a turn that was taken in time is still heard."""


class _Question:
    """One request for a turn under way: its verdict, and what became of the messages that carry it."""

    def __init__(self) -> None:
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.sent = self.refused = 0

    def settle(self, verdict: Verdict) -> None:
        if not self.verdict.done():
            self.verdict.set_result(verdict)


class Admission:
    """One gateway's questions under way. All verdicts come on one subject space that only this process listens to.

    Each question has an id of its own: several may ask for one turn at once, and not with the same words.
    """

    def __init__(self, bus: Bus, gateway_id: str, shards: int, clock: StorageClock) -> None:
        self._bus, self._gateway_id, self._shards, self._clock = bus, gateway_id, shards, clock
        self._waiting: dict[str, _Question] = {}
        self._decode = codec.decoder(Verdict).decode

    async def open(self) -> None:
        """Listen for verdicts and for JetStream's receipts."""
        await self._bus.listen(subjects.verdict(self._gateway_id, "*"), self._hear_verdict)
        await self._bus.listen(subjects.stored(self._gateway_id, "*"), self._hear_receipt)

    async def ask(self, turn: TurnRequested, budget: float) -> Accepted:
        """Publish the turn until there is a verdict. Where it is to be told, and until when, is filled in here.

        Raises the fault it was refused with; BodyTooLarge above the bus's limit; EngineOverloaded where the stream is
        full; StorageUnavailable where `budget` seconds have brought no verdict. Then no worker takes it any more.
        """
        question_id = new_id()
        subject = subjects.verdict(self._gateway_id, question_id)
        until = await self._clock.moment(budget)
        question = self._waiting[question_id] = _Question()
        try:
            asked = msgspec.structs.replace(turn, verdict_subject=subject, expires_at=until)
            found = await self._until_verdict(asked, question_id, question, budget)
        finally:
            del self._waiting[question_id]
        if isinstance(found, Refused):
            raise fault_from(found.fault)
        return found

    async def _until_verdict(
        self, turn: TurnRequested, question_id: str, question: _Question, budget: float
    ) -> Verdict:
        session_id = turn.request.cozy.session_id if turn.request.cozy else None
        subject = turn_event(TURN_REQUESTED, shard_of(session_id or turn.turn_id, self._shards))
        receipt = subjects.stored(self._gateway_id, question_id)
        data = codec.encode(turn)
        loop = asyncio.get_running_loop()
        end, tries = loop.time() + budget, 0
        while (left := end - loop.time()) > 0:
            question.sent += 1
            try:
                # A fresh message id each time: the stream may have lost, or be swallowing, the one before.
                await self._bus.publish(subject, data, reply=receipt, msg_id=f"{question_id}.{tries}")
            except BusUnavailable as error:
                question.sent -= 1
                log.warning("turn_not_published", error=str(error))
            except TooLarge:
                raise BodyTooLarge from None
            await asyncio.wait((question.verdict,), timeout=min(AGAIN_AFTER, left))
            if question.verdict.done():
                return question.verdict.result()
            tries += 1
        await asyncio.wait((question.verdict,), timeout=LAST_MOMENT)
        if question.verdict.done():
            return question.verdict.result()
        log.warning("no_verdict", tries=tries)
        raise StorageUnavailable("The turn could not be stored in time, and was not accepted. Try again shortly.")

    def _hear_verdict(self, subject: str, data: bytes) -> None:
        question = self._question_of(subject)
        if question is not None:
            question.settle(self._decode(data))

    def _hear_receipt(self, subject: str, data: bytes) -> None:
        question = self._question_of(subject)
        try:
            error = read_receipt(data).error
        except msgspec.DecodeError:
            return
        if error is None or question is None:
            return
        code = error.get("err_code")
        log.warning("turn_refused_by_stream", err_code=code)
        question.refused += 1
        # A try whose receipt never came, or was good, may yet be taken: then the workers' word counts alone.
        if code in STREAM_FULL and question.refused == question.sent:
            question.settle(Refused(turn_id="", fault=EngineOverloaded().record))

    def _question_of(self, subject: str) -> _Question | None:
        return self._waiting.get(subject.rpartition(".")[2])
