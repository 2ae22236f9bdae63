"""Engines per provider and model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from ops.runtime.models import ModelCatalogue
from ops.runtime.settings import Provider
from schemas.context import ModelChoice
from schemas.faults import EngineFailed, ModelNotFound
from tests.workers.engines.ai.conftest import QUICK, asking, words_of
from workers.engines.ai.openai_compatible import OpenAICompatible
from workers.engines.ai.pool import EnginePool
from workers.engines.ai.port import API_VERSION, AIEngine
from workers.plugins.registry import Registry

MODEL = ModelChoice(provider="scripted", model="scripted")
SMALL = ModelChoice(provider="scripted", model="scripted-small")
MakePool = Callable[..., EnginePool]


@pytest.fixture
async def make_pool(scripted: str) -> AsyncIterator[MakePool]:
    pools: list[EnginePool] = []

    def make(registry: Registry[AIEngine] | None = None, **others: Provider) -> EnginePool:
        providers = {"scripted": Provider(base_url=f"{scripted}/v1"), **others}
        pools.append(EnginePool(ModelCatalogue(providers=providers, default=MODEL), QUICK, registry))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


async def test_the_same_model_gets_the_same_engine(make_pool: MakePool) -> None:
    pool = make_pool()
    with capture_logs() as lines:
        first, again, other = [await pool.engine(choice) for choice in (MODEL, MODEL, SMALL)]
    assert first is again
    assert other is not first
    created = [line["model"] for line in lines if line["event"] == "engine_client_created"]
    assert created == ["scripted", "scripted-small"]


class SlowToStart(OpenAICompatible):
    """An engine of a stranger's, which takes its time and counts itself."""

    made = 0

    async def initialize(self) -> None:
        type(self).made += 1
        await asyncio.sleep(0.01)
        await super().initialize()


async def test_engines_asked_for_at_once_are_made_once(make_pool: MakePool) -> None:
    registry: Registry[AIEngine] = Registry("AI", API_VERSION)
    registry.register("openai", SlowToStart)
    pool = make_pool(registry)
    engines = await asyncio.gather(*(pool.engine(MODEL) for _ in range(10)), pool.engine(SMALL))
    assert len(set(map(id, engines))) == 2
    assert SlowToStart.made == 1


async def test_an_unknown_provider_has_no_models(make_pool: MakePool) -> None:
    with pytest.raises(ModelNotFound):
        await make_pool().engine(ModelChoice(provider="gone", model="m"))


async def test_a_provider_that_is_away_harms_no_other(make_pool: MakePool, unused_url: str) -> None:
    pool = make_pool(away=Provider(base_url=unused_url))
    await pool.initialize()
    health = await pool.health_check()
    assert health["scripted"]["status"] == "ok"
    assert health["away"] == {"status": "failed", "code": EngineFailed.code}
    assert await words_of(await pool.engine(MODEL), asking(tokens=1))


async def test_a_provider_that_does_not_answer_is_unwell_in_time(
    make_pool: MakePool, deaf_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.engines.ai.pool.HEALTH_TIMEOUT", 0.2)
    health = await make_pool(deaf=Provider(base_url=deaf_url)).health_check()
    assert health["deaf"] == {"status": "failed", "code": "ENGINE_TIMEOUT"}


async def test_closing_twice_is_closing_once(make_pool: MakePool) -> None:
    pool = make_pool()
    await words_of(await pool.engine(MODEL), asking(tokens=1))
    await pool.close()
    await pool.close()


async def test_a_closed_pool_makes_new_engines(make_pool: MakePool) -> None:
    pool = make_pool()
    await pool.engine(MODEL)
    await pool.close()
    assert await words_of(await pool.engine(MODEL), asking(tokens=1))
