"""Asking the same thing again: with a key always, without one only where the client says that it is a retry."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from ops.runtime.bus import Bus
from schemas import subjects
from tests.journeys.api import CHAT, Api, Upstream, request
from tests.journeys.gateways import another_gateway
from tests.journeys.stack import KEY, Stack, until

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


@pytest.mark.parametrize("again", [{}, {"x-stainless-retry-count": "1"}])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_connection_lost_before_the_headers_costs_no_second_generation(
    api: Api, http: aiohttp.ClientSession, upstream: Upstream, word: str, streamed: bool, again: dict[str, str]
) -> None:
    """With a key in the first case, as a stock SDK tries again in the second."""
    asked = {**SLOW, "x-scripted-ttft-ms": "500", **({} if again else key(word))}
    lost = asyncio.create_task(_begin(http, api.url, f"Once, {word}.", asked, events=1, stream=streamed))
    await until(lambda: _asked(upstream, word), 5, lambda: "never asked")
    lost.cancel()
    if streamed:
        assert (await api.stream(f"Once, {word}.", headers={**asked, **again})).whole
    else:
        assert (await api.chat(f"Once, {word}.", headers={**asked, **again})).status == 200
    await upstream.asked_once(word)


@pytest.mark.parametrize("again", [{}, {"x-stainless-retry-count": "1"}])
async def test_a_connection_lost_in_the_stream_costs_no_second_generation(
    api: Api, http: aiohttp.ClientSession, upstream: Upstream, word: str, again: dict[str, str]
) -> None:
    asked = {**SLOW, **({} if again else key(word))}
    seen = await _begin(http, api.url, f"Once, {word}.", asked, events=4)
    stream = await api.stream(f"Once, {word}.", headers={**asked, **again})
    assert stream.whole
    assert stream.raw.startswith(seen[: seen.rindex(b"\n\n") + 2])
    await upstream.asked_once(word)


@pytest.mark.parametrize("again", [{}, {"x-stainless-retry-count": "1"}])
async def test_an_answer_lost_after_its_end_is_read_again_and_not_made_again(
    api: Api, upstream: Upstream, word: str, again: dict[str, str]
) -> None:
    asked = {} if again else key(word)
    first = await api.stream(f"Once, {word}.", headers=asked)
    second = await api.stream(f"Once, {word}.", headers={**asked, **again})
    assert (second.text, second.cozy["turn_id"]) == (first.text, first.cozy["turn_id"])
    await upstream.asked_once(word)


async def test_two_at_once_with_one_key_on_two_gateways_are_one_generation_and_both_are_served(
    stack: Stack, http: aiohttp.ClientSession, api: Api, upstream: Upstream, word: str
) -> None:
    async with another_gateway(stack, http) as gateway:
        other = Api(http, gateway.url, api.key)
        asked = {**SLOW, **key(word)}
        both = await asyncio.gather(*(each.stream(f"Once, {word}.", headers=asked) for each in (api, other)))
    assert all(stream.whole for stream in both)
    assert both[0].text == both[1].text
    assert both[0].cozy["turn_id"] == both[1].cozy["turn_id"]
    await upstream.asked_once(word)


async def test_two_bodies_at_once_under_one_key_are_an_answer_and_a_refusal(
    api: Api, upstream: Upstream, word: str
) -> None:
    answers = await asyncio.gather(*(api.chat(f"{said}, {word}.", headers=key(word)) for said in ("One", "Other")))
    assert sorted(answer.status for answer in answers) == [200, 422]
    await upstream.asked_once(word)


@pytest.mark.parametrize("when", ["under way", "over"])
async def test_a_message_that_comes_again_outside_of_the_streams_window_changes_nothing(
    stack: Stack, api: Api, upstream: Upstream, word: str, when: str
) -> None:
    """The same bytes without a message id: to JetStream they are new, as they would be once its window is over."""
    bus = await Bus.connect(stack.entry("nats").url, "test")
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    await bus.listen(
        subjects.every_shard(subjects.TURN_REQUESTED),
        lambda subject, data: heard.put_nowait((subject, data)) if word.encode() in data else None,
    )
    await bus.flush()
    session_id = await api.session()
    asked = asyncio.create_task(api.stream(f"Once, {word}.", headers=SLOW, cozy={"session_id": session_id}))
    subject, data = await asyncio.wait_for(heard.get(), 5)
    if when == "over":
        await asked
    for _ in range(2):
        receipt = await bus.store(subject, data, msg_id=None)
        assert not receipt.duplicate
    assert (await asked).whole
    await bus.close()
    assert (await api.chat("Next.", cozy={"session_id": session_id})).status == 200
    assert [message["role"] for message in await api.messages(session_id)] == ["user", "assistant"] * 2
    assert len(await upstream.asked(word)) == 2, "once itself, and once in the history of the next"


async def _begin(
    http: aiohttp.ClientSession, url: str, said: str, headers: dict[str, str], *, events: int, stream: bool = True
) -> bytes:
    """The bytes of a chat's first events, whose client then hangs up."""
    body = {**request(said), **({"stream": True} if stream else {})}
    raw = b""
    async with http.post(url + CHAT, json=body, headers={"authorization": f"Bearer {KEY}", **headers}) as answer:
        while raw.count(b"\n\n") < events:
            raw += await answer.content.readany()
        answer.close()
    return raw


async def _asked(upstream: Upstream, word: str) -> bool:
    return bool(await upstream.asked(word))
