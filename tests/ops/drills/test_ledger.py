"""The ledger counts what was asked for, and what of it had an effect."""

from __future__ import annotations

import aiohttp

from ops.drills.ledger import KEYED, ONCE, Effects
from ops.drills.world import effects_of
from workers.engines.tools.ledger import ledgers
from workers.engines.tools.port import RunnableTool


def tools(url: str) -> dict[str, RunnableTool]:
    return {tool.spec.function.name: tool for tool in ledgers(url)}


async def test_an_empty_ledger_has_no_effects(ledger: str) -> None:
    assert await effects_of(ledger) == []


async def test_a_call_with_a_key_has_one_effect_however_often_it_is_made(ledger: str) -> None:
    keyed = tools(ledger)["ledger_keyed"]
    assert keyed.idempotent
    assert [await keyed.run({"entry": "a"}, "call-1") for _ in range(3)] == ["It is written."] * 3
    assert await effects_of(ledger) == [Effects(entry="a", kind=KEYED, effects=1, requests=3)]


async def test_another_key_is_another_effect(ledger: str) -> None:
    keyed = tools(ledger)["ledger_keyed"]
    for key in ("call-1", "call-2"):
        await keyed.run({"entry": "a"}, key)
    assert await effects_of(ledger) == [Effects(entry="a", kind=KEYED, effects=2, requests=2)]


async def test_a_call_without_a_key_has_its_effect_every_time(ledger: str) -> None:
    once = tools(ledger)["ledger_once"]
    assert not once.idempotent
    for _ in range(2):
        await once.run({"entry": "a"}, "call-1")
    assert await effects_of(ledger) == [Effects(entry="a", kind=ONCE, effects=2, requests=2)]


async def test_what_was_asked_for_counts_although_nobody_waits_for_the_answer(
    ledger: str, http: aiohttp.ClientSession
) -> None:
    try:
        async with http.post(f"{ledger}/once", json={"entry": "a"}, timeout=aiohttp.ClientTimeout(total=0.1)):
            raise AssertionError("it answered at once")
    except TimeoutError:
        pass
    assert await effects_of(ledger) == [Effects(entry="a", kind=ONCE, effects=1, requests=1)]
