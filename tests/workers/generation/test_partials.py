"""The text so far of replies under way, kept in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ops.runtime.bus import Bus
from schemas.turns import TurnState
from tests.workers.asked import alive, answer, claimed, column, prepared, reply
from tests.workers.generation.rounds_made import round_of, writer_of
from workers.generation import partials
from workers.generation.partials import PartialKeeper
from workers.generation.writer import Piece
from workers.storage.turns import Turns

KEPT = "SELECT content AS value FROM messages WHERE role = 'assistant' ORDER BY ord"


@pytest.fixture
async def keeper(turns: Turns, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PartialKeeper]:
    """One that stores what has grown as soon as it can."""
    monkeypatch.setattr(partials, "EVERY_SECONDS", 0.001)
    keeper = PartialKeeper(turns, bus)
    task = asyncio.create_task(keeper.run())
    yield keeper
    task.cancel()


def not_lost() -> None:
    raise AssertionError("nobody else owns it")


async def until_kept(turns: Turns, *texts: str) -> None:
    async with asyncio.timeout(5):
        while sorted(await column(turns.database, KEPT)) != sorted(texts):
            pass


async def test_what_has_grown_is_kept_for_every_reply(
    keeper: PartialKeeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    rounds = [round_of(await claimed(turns, await prepared(turns, user_id))) for _ in range(2)]
    one, other = [writer_of(bus, round) for round in rounds]
    with keeper.keeping(one, rounds[0].claimed, not_lost), keeper.keeping(other, rounds[1].claimed, not_lost):
        await one.say([Piece(0, "He")])
        await until_kept(turns, "He")
        await one.say([Piece(0, "llo")])
        await other.say([Piece(0, "Bye")])
        await until_kept(turns, "Hello", "Bye")


async def test_what_did_not_grow_is_not_written_again(
    keeper: PartialKeeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    round = round_of(await claimed(turns, await prepared(turns, user_id)))
    writer = writer_of(bus, round)
    version = "SELECT xmin::text AS value FROM messages WHERE role = 'assistant'"
    with keeper.keeping(writer, round.claimed, not_lost):
        await writer.say([Piece(0, "He")])
        await until_kept(turns, "He")
        before = await column(turns.database, version)
        other = round_of(await claimed(turns, await prepared(turns, user_id)))
        with keeper.keeping(second := writer_of(bus, other), other.claimed, not_lost):
            await second.say([Piece(0, "x")])
            await until_kept(turns, "He", "x")
        query = version + " AND content = '\"He\"'"
        assert await column(turns.database, query) == before


async def test_a_reply_that_ended_is_forgotten_even_if_its_text_was_on_the_way(
    keeper: PartialKeeper, turns: Turns, user_id: str, bus: Bus
) -> None:
    await alive(turns)
    round = round_of(await claimed(turns, await prepared(turns, user_id)))
    writer = writer_of(bus, round)
    async with turns.database.transaction() as held:
        # Holding the turn's session row makes the keeper's statement wait on its foreign key.
        await held.run("SELECT 1 FROM sessions FOR UPDATE", {})
        with keeper.keeping(writer, round.claimed, not_lost):
            await writer.say([Piece(0, "He")])
            async with asyncio.timeout(5):
                waiting = "SELECT count(*) AS value FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                while await column(turns.database, waiting) == [0]:
                    pass
    await until_kept(turns, "He")
    await turns.finish(round.claimed, TurnState.COMPLETED, reply("Hello"), [answer(round.claimed.turn_id, "Hello")])
    await until_kept(turns, "Hello")
    assert not keeper._open
