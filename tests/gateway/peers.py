"""The gateway's peers on the bus, as far as a test needs them: those who answer for records and for the stages."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from nats.aio.msg import Msg

from ops.runtime.bus import Bus, BusUnavailable
from schemas import codec, subjects
from schemas.engines import EngineHealth, EnginesHealth
from schemas.faults import AuthInvalid, Fault, NotFound
from schemas.ids import part_of
from schemas.openai import Usage
from schemas.records import Answer, Caller, FindCaller, Ping, Pong, Query
from schemas.replies import Delta, Failed, Finished, Frame, Progress, ReplyFold, Start
from schemas.turns import Accepted, Refused, TurnRequested


class RecordsPeer:
    """Answers the questions for the records worker from what the test put in: `answers[kind] = function`.

    `callers` are the keys' hashes it knows. `silent` makes it hear and not answer.
    """

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {}
        self.answers: dict[type[Any], Callable[[Any], Any]] = {FindCaller: self._find, Ping: _tell_time}
        self.asked: Counter[str] = Counter()
        self.silent = False
        self.heard = asyncio.Event()
        self._bus: Bus | None = None
        self._decode = codec.decoder(Query).decode

    async def open(self, url: str) -> None:
        """Begin to answer."""
        self._bus = await Bus.connect(url, "records-peer")
        await self._bus.client.subscribe("records.*", cb=self._hear, queue="records")
        await self._bus.flush()

    async def close(self) -> None:
        """Be gone: whoever asks finds nobody."""
        if self._bus is not None:
            await self._bus.close()
            self._bus = None

    def _find(self, query: FindCaller) -> Caller:
        caller = self.callers.get(query.key_hash)
        if caller is None:
            raise AuthInvalid
        return caller

    async def _hear(self, message: Msg) -> None:
        query = self._decode(message.data)
        self.asked[type(query).__name__] += 1
        self.heard.set()
        if not self.silent:
            await message.respond(codec.encode(self._answer(query)))

    def _answer(self, query: Any) -> Answer:
        try:
            if type(query) not in self.answers:
                raise NotFound
            return Answer(value=msgspec.Raw(codec.encode(self.answers[type(query)](query))))
        except Fault as fault:
            return Answer(fault=fault.record)


def _tell_time(_: Ping) -> Pong:
    return Pong(database_ms=1.0, database_time=time.time())


class AskedTurn:
    """A turn that reached the stages; the test says what becomes of it."""

    def __init__(self, bus: Bus, requested: TurnRequested) -> None:
        self.requested = requested
        cozy = requested.request.cozy
        self.session_id = (cozy and cozy.session_id) or part_of(requested.turn_id, "session")
        self._bus = bus
        self._fold = ReplyFold()

    async def accept(self) -> None:
        """Yes, and an owner begins."""
        accepted = Accepted(
            turn_id=self.requested.turn_id, session_id=self.session_id, personality_id="default", shard=0, created=1
        )
        await self._bus.publish(self.requested.verdict_subject, codec.encode(accepted))
        await self._say(Start(epoch=1, index=0))

    async def refuse(self, fault: Fault) -> None:
        """No."""
        refused = Refused(turn_id=self.requested.turn_id, fault=fault.record)
        await self._bus.publish(self.requested.verdict_subject, codec.encode(refused))

    async def say(self, text: str) -> None:
        """Some words of the reply."""
        await self._say(Delta(epoch=1, index=self._fold.index + 1, text=text))

    async def use_tool(self, name: str, state: str) -> None:
        """A tool of ours is at work."""
        await self._say(Progress(epoch=1, tool=name, call_id="call_1", state=state))

    async def finish(self, *, stopped: bool = False) -> None:
        """The reply is whole, or ends where it was stopped."""
        fold = self._fold
        await self._say(
            Finished(
                epoch=1, index=fold.index, finish_reasons=["stop"], usage=Usage(total_tokens=42),
                length=fold.length, digest=fold.digest, state="cancelled" if stopped else "completed", stopped=stopped,
            )
        )  # fmt: skip

    async def listened(self) -> None:
        """Wait until a gateway listens to this reply."""
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(BusUnavailable):
                    await self._bus.ask(subjects.listeners(self.requested.turn_id), b"", timeout=1)
                    return

    async def fail(self, fault: Fault) -> None:
        """The reply ends here, and not well."""
        await self._say(Failed(epoch=1, index=self._fold.index, fault=fault.record))

    async def _say(self, frame: Frame) -> None:
        self._fold.feed(frame)
        await self._bus.publish(subjects.live(0, self.requested.turn_id), codec.encode(frame))


class EnginesPeer:
    """Answers for the generation workers how the model servers are."""

    def __init__(self, **providers: EngineHealth) -> None:
        self.said = EnginesHealth(providers=providers)
        self._bus: Bus | None = None

    async def open(self, url: str) -> None:
        """Begin to answer."""
        self._bus = await Bus.connect(url, "engines-peer")
        await self._bus.client.subscribe(subjects.ENGINES_HEALTH, cb=self._hear)
        await self._bus.flush()

    async def close(self) -> None:
        """Be gone."""
        if self._bus is not None:
            await self._bus.close()

    async def _hear(self, message: Msg) -> None:
        await message.respond(codec.encode(self.said))


class StagesPeer:
    """Takes turns from the bus for the stages, and hands them to the test."""

    def __init__(self) -> None:
        self.turns: asyncio.Queue[AskedTurn] = asyncio.Queue()
        self._bus: Bus | None = None

    async def open(self, url: str) -> None:
        """Begin to listen for turns."""
        bus = self._bus = await Bus.connect(url, "stages-peer")

        def hear(_subject: str, data: bytes) -> None:
            self.turns.put_nowait(AskedTurn(bus, codec.decode(data, TurnRequested)))

        await bus.listen(subjects.every_shard(subjects.TURN_REQUESTED), hear)
        await bus.flush()

    async def close(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            await self._bus.close()

    async def next(self) -> AskedTurn:
        """The next turn that is asked for."""
        async with asyncio.timeout(10):
            return await self.turns.get()
