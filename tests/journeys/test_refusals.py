"""Requests that are refused at the edge: each with its code, its status and the path of what is wrong."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
import pytest

from tests.journeys.api import CHAT, LIMIT, Api, Upstream, request

HELLO = request("Hello.")
MAX_BODY = 7_000_000


def body(**changed: Any) -> bytes:
    return msgspec.json.encode({**HELLO, **changed})


NO_JSON, NO_VALUE = "VALIDATION_JSON", "VALIDATION_VALUE"
UNREADABLE = {
    "nothing": (b"", NO_JSON),
    "cut": (b"{", NO_JSON),
    "text": (b"not json at all", NO_JSON),
    "comma": (body()[:-1] + b",}", NO_JSON),
    "broken-utf8": (b'{"model":"cozy/default","messages":[{"role":"user","content":"\xff\xfe"}]}', NO_JSON),
    "half-emoji": (b'{"model":"cozy/default","messages":[{"role":"user","content":"\xf0\x9f\x8c"}]}', NO_JSON),
    "lone-surrogate": (b'{"model":"cozy/default","messages":[{"role":"user","content":"\\ud83c"}]}', NO_JSON),
    "endless": (b"[" * 200_000, NO_VALUE),
    "deep": (body(metadata={"deep": msgspec.Raw(b"[" * 5000 + b"]" * 5000)}), NO_VALUE),
    "list": (b"[]", NO_VALUE),
    "null": (b"null", NO_VALUE),
}


@pytest.mark.parametrize(("sent", "code"), UNREADABLE.values(), ids=UNREADABLE)
async def test_a_body_that_cannot_be_read(api: Api, sent: bytes, code: str) -> None:
    answer = await api.call("POST", CHAT, sent)
    assert (answer.status, answer.error["code"]) == (400, code)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"temperature": 9}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"cozy": {"on_busy": "shout"}}, "cozy.on_busy"),
        ({"cozy": {"personality_id": "nobody"}}, "cozy.personality_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_value_is_named_by_its_path(api: Api, changed: dict[str, Any], param: str) -> None:
    answer = await api.call("POST", CHAT, body(**changed))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", param)


async def test_what_is_missing_is_named(api: Api) -> None:
    answer = await api.call("POST", CHAT, {"model": "cozy/default"})
    assert (answer.status, answer.error["param"]) == (400, "messages")


async def test_an_error_repeats_nothing_that_was_said(api: Api, word: str) -> None:
    answer = await api.call("POST", CHAT, body(messages=[{"role": word, "content": word}], user=word))
    assert answer.status == 400
    assert word not in str(answer.body)


@pytest.mark.parametrize("model", ["no-such-model", "cozy/nobody", "gpt-5"])
async def test_an_unknown_model(api: Api, model: str) -> None:
    answer = await api.chat("Hello.", model=model)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "RESOURCE_MODEL_NOT_FOUND", "model")


async def test_an_unknown_session(api: Api) -> None:
    answer = await api.chat("Hello.", cozy={"session_id": "0193a8c0-0000-7000-8000-000000000000"})
    assert (answer.status, answer.error["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_a_body_above_the_limit(api: Api) -> None:
    answer = await api.chat("x" * (MAX_BODY + 1))
    assert (answer.status, answer.error["code"]) == (413, "VALIDATION_BODY_TOO_LARGE")
    assert str(MAX_BODY) in answer.error["message"]


async def test_a_body_above_the_limit_that_does_not_announce_its_length(api: Api, http: aiohttp.ClientSession) -> None:
    async def parts() -> Any:
        for _ in range(8):
            yield b" " * 1_000_000

    headers = {"authorization": f"Bearer {api.key}", "content-type": "application/json"}
    async with http.post(api.url + CHAT, data=parts(), headers=headers, timeout=LIMIT) as answer:
        assert answer.status == 413


async def test_a_message_of_nearly_the_limit_is_answered(api: Api, upstream: Upstream, word: str) -> None:
    said = [{"role": "user", "content": f"{word} " + "é" * 1_600_000}, {"role": "user", "content": "b" * 3_500_000}]
    answer = await api.chat(said, model="scripted", headers={"x-scripted-tokens": "3"})
    assert answer.status == 200
    assert (await upstream.asked_once(word))["messages"] == said


async def test_a_history_of_ten_thousand_messages_is_answered(api: Api, upstream: Upstream, word: str) -> None:
    said = [{"role": ("user", "assistant")[number % 2], "content": f"Message {number}"} for number in range(10_000)]
    answer = await api.chat([*said, {"role": "user", "content": word}])
    assert "Before this I saw 10000 messages." in answer.text
    assert len((await upstream.asked_once(word))["messages"]) == 10_002


async def test_every_character_comes_back(api: Api) -> None:
    said = 'A "quoted" \\ line\nand\ttab, \u0007 bell, é, 雪, 🌲, \u2028, <script>'
    session_id = await api.session()
    answer = await api.chat(said, cozy={"session_id": session_id})
    assert answer.status == 200
    assert (await api.messages(session_id))[0]["content"] == said


async def test_a_character_that_cannot_be_stored_is_refused(api: Api) -> None:
    session_id = await api.session()
    for answer in (
        await api.chat("before \u0000 after", cozy={"session_id": session_id}),
        await api.call("PATCH", f"/v1/chat/sessions/{session_id}", {"title": "before \u0000 after"}),
    ):
        assert (answer.status, answer.error["code"]) == (400, "VALIDATION_VALUE")
    assert await api.messages(session_id) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", CHAT), ("DELETE", "/v1/models"), ("PUT", "/v1/chat/sessions"), ("POST", "/health")],
)
async def test_a_method_that_is_not_there(api: Api, method: str, path: str) -> None:
    answer = await api.call(method, path)
    assert (answer.status, answer.error["code"]) == (405, "VALIDATION_METHOD")
    assert answer.headers["allow"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_a_media_type_that_is_not_read(api: Api, kind: str) -> None:
    answer = await api.call("POST", CHAT, body(), {"content-type": kind})
    assert (answer.status, answer.error["code"]) == (415, "VALIDATION_MEDIA_TYPE")


@pytest.mark.parametrize("path", ["/v1/nothing", "/v2/chat/completions", "/v1/chat/completions/more", "/static/../etc"])
async def test_a_path_that_is_not_there(api: Api, path: str) -> None:
    answer = await api.call("GET", path)
    assert (answer.status, answer.error["code"]) == (404, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=many", "limit"), ("cursor=mine", "cursor")],
)
async def test_a_list_asked_for_wrongly(api: Api, query: str, param: str) -> None:
    answer = await api.call("GET", f"/v1/chat/sessions?{query}")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", param)


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ({"personality_id": "nobody"}, "personality_id"),
        ({"title": 5}, "title"),
        ({"title": "x" * 201}, "title"),
    ],
)
async def test_a_session_asked_for_wrongly(api: Api, sent: dict[str, Any], param: str) -> None:
    answer = await api.call("POST", "/v1/chat/sessions", sent)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", param)


@pytest.mark.parametrize("key", ['""', "x" * 300])
async def test_an_idempotency_key_that_cannot_be_one(api: Api, key: str) -> None:
    answer = await api.chat("Hello.", headers={"idempotency-key": key})
    assert (answer.status, answer.error["param"]) == (400, "Idempotency-Key")
