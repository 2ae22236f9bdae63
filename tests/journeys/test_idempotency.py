"""Asking the same thing again: with a key always, without one only where the client says that it is a retry."""

from __future__ import annotations

import asyncio

import pytest

from tests.journeys.api import Api, Upstream
from tests.journeys.stack import until

SLOW = {"x-scripted-tokens": "12", "x-scripted-gap-ms": "60"}


def key(word: str) -> dict[str, str]:
    return {"idempotency-key": f"key-of-{word[-6:]}"}


async def test_a_repeat_gets_the_same_answer_and_asks_the_model_once(api: Api, upstream: Upstream, word: str) -> None:
    first, second = [await api.chat(f"Once, {word}.", headers=key(word)) for _ in range(2)]
    assert first.body["cozy"]["turn_id"] == second.body["cozy"]["turn_id"]
    assert first.body == second.body
    await upstream.asked_once(word)


async def test_a_repeated_stream_is_the_same_stream(api: Api, upstream: Upstream, word: str) -> None:
    first, second = [await api.stream(f"Once, {word}.", headers=key(word)) for _ in range(2)]
    assert first.raw == second.raw
    await upstream.asked_once(word)


async def test_a_repeat_while_the_reply_is_under_way_hears_it_from_the_start(
    api: Api, upstream: Upstream, word: str
) -> None:
    asked = asyncio.create_task(api.stream(f"Once, {word}.", headers={**key(word), **SLOW}))
    await until(lambda: _asked(upstream, word), 5, lambda: "never asked")
    second = await api.stream(f"Once, {word}.", headers={**key(word), **SLOW})
    first = await asked
    assert second.whole
    assert (second.text, second.cozy) == (first.text, first.cozy)
    assert second.chunks == first.chunks
    await upstream.asked_once(word)


async def test_many_at_once_with_one_key_are_one_turn(api: Api, upstream: Upstream, word: str) -> None:
    answers = await asyncio.gather(*(api.chat(f"Once, {word}.", headers=key(word)) for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["id"] for answer in answers}) == 1
    await upstream.asked_once(word)


@pytest.mark.parametrize("quoted", ['"{}"', " {} "])
async def test_a_key_is_the_same_quoted_and_bare(api: Api, word: str, quoted: str) -> None:
    bare = key(word)["idempotency-key"]
    first = await api.chat(f"Once, {word}.", headers={"idempotency-key": bare})
    second = await api.chat(f"Once, {word}.", headers={"idempotency-key": quoted.format(bare)})
    assert first.body["id"] == second.body["id"]


async def test_another_body_under_the_same_key_is_refused(api: Api, word: str) -> None:
    await api.chat(f"Once, {word}.", headers=key(word))
    other = await api.chat(f"Otherwise, {word}.", headers=key(word))
    assert (other.status, other.error["code"]) == (422, "VALIDATION_IDEMPOTENCY_MISMATCH")
    assert other.headers["x-should-retry"] == "false"


async def test_another_users_same_key_is_another_turn(api: Api, stranger: Api, word: str) -> None:
    mine, theirs = [await caller.chat(f"Once, {word}.", headers=key(word)) for caller in (api, stranger)]
    assert mine.status == theirs.status == 200
    assert mine.body["id"] != theirs.body["id"]


async def test_in_a_session_a_repeat_adds_no_message(api: Api, word: str) -> None:
    session_id = await api.session()
    for _ in range(2):
        await api.chat(f"Once, {word}.", headers=key(word), cozy={"session_id": session_id})
    assert len(await api.messages(session_id)) == 2


async def test_a_retry_of_the_sdk_joins_the_reply_it_lost(api: Api, upstream: Upstream, word: str) -> None:
    first = asyncio.create_task(api.stream(f"Once, {word}.", headers={"x-stainless-retry-count": "0", **SLOW}))
    await until(lambda: _asked(upstream, word), 5, lambda: "never asked")
    again = await api.stream(f"Once, {word}.", headers={"x-stainless-retry-count": "1", **SLOW})
    assert again.cozy["turn_id"] == (await first).cozy["turn_id"]
    assert again.text == (await first).text
    await upstream.asked_once(word)


async def test_the_same_words_again_without_key_or_retry_are_a_new_turn(
    api: Api, upstream: Upstream, word: str
) -> None:
    answers = [await api.chat(f"Twice, {word}.", headers={"x-stainless-retry-count": "0"}) for _ in range(2)]
    assert answers[0].body["id"] != answers[1].body["id"]
    assert len(await upstream.asked(word)) == 2


async def test_a_retry_that_lost_nothing_is_a_new_turn(api: Api, word: str) -> None:
    answer = await api.chat(f"Never heard of, {word}.", headers={"x-stainless-retry-count": "2"})
    assert answer.status == 200


async def _asked(upstream: Upstream, word: str) -> bool:
    return bool(await upstream.asked(word))
