"""Bodies: read within the limit, decoded strictly, and every complaint naming the path and none of the words."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import body
from gateway.problems import ClientGone
from schemas.faults import BodyTooLarge, Fault, InvalidValue, NotJson, WrongMediaType
from schemas.openai import ChatRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def chat(**changes: Any) -> bytes:
    return json.dumps({**CHAT, **changes}).encode()


def refused(data: bytes, kind: Any = ChatRequest) -> Fault:
    with pytest.raises(Fault) as caught:
        body.decode(data, kind)
    return caught.value


async def received(*pieces: bytes | None, limit: int = 1000, headers: dict[bytes, bytes] | None = None) -> Any:
    """What `read` makes of a body that comes in these pieces; None is a client that leaves."""
    coming = list(pieces)

    async def receive() -> Any:
        piece = coming.pop(0)
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(coming)}

    scope: Any = {"headers": list((headers or {}).items())}
    return await body.read(scope, receive, dict, limit)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "truncated"),
        (b'{"model": "m", ', "truncated"),
        (chat() + b" and more", "trailing"),
        (b"\xef\xbb\xbf{}", "byte 0"),
        (chat().replace(b"hello", b"hel\xfflo"), "UTF-8"),
        (b'{"unknown": "\xff", ' + chat()[1:], "UTF-8"),
        (chat().replace(b"hello", b"\\ud800 half an emoji"), "surrogate"),
    ],
)
def test_what_is_not_json_is_refused_as_such(data: bytes, where: str) -> None:
    fault = refused(data)
    assert isinstance(fault, NotJson)
    assert where in fault.record.message


@pytest.mark.parametrize(
    ("data", "param"),
    [
        (b"[]", None),
        (b"{}", "model"),
        (b'{"model": "m"}', "messages"),
        (chat(model=1), "model"),
        (chat(messages=[]), "messages"),
        (chat(messages=[{"role": "clown", "content": "x"}]), "messages[0].role"),
        (chat(messages=[*CHAT["messages"], {"role": "user"}]), "messages[1].content"),
        (chat(messages=[{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
        (chat(temperature=3), "temperature"),
        (chat(logit_bias={"50256": "much"}), "logit_bias[...]"),
        (chat(cozy={"on_busy": "never"}), "cozy.on_busy"),
        (chat(tools=[{"function": {"name": "no spaces"}}]), "tools[0].function.name"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(data: bytes, param: str | None) -> None:
    fault = refused(data)
    assert isinstance(fault, InvalidValue)
    assert fault.record.param == param


WORDS = "words of a person"


@pytest.mark.parametrize(
    "data",
    [
        chat(messages=[{"role": WORDS, "content": WORDS}]),
        chat(messages=WORDS),
        chat(messages=[{"role": "user", "content": WORDS, "name": 5}]),
        chat(messages=[{"role": "user", "content": [{"type": WORDS}]}]),
        chat(cozy={"on_busy": WORDS}),
        chat(logit_bias={WORDS: WORDS}),
        chat(tools=[{"function": {"name": WORDS}}]),
        chat(user=WORDS)[:-1],
        chat(user=WORDS).replace(b"words", b"\xff"),
    ],
)
def test_a_complaint_repeats_no_word_of_the_body(data: bytes) -> None:
    record = refused(data).record
    assert "person" not in f"{record.message} {record.param} {record.details}"


def test_a_key_of_the_wrong_type_is_named_by_the_object_it_is_in() -> None:
    class Counts(msgspec.Struct):
        counts: dict[int, int]

    assert refused(b'{"counts": {"one": 1}}', Counts).record.param == "counts"


@pytest.mark.parametrize("levels", [101, 5_000, 1_000_000])
def test_deep_nesting_is_refused_and_crashes_nothing(levels: int) -> None:
    nested = b"[" * levels + b"]" * levels
    fault = refused(chat()[:-1] + b', "metadata": {"x": ' + nested + b"}}")
    assert isinstance(fault, InvalidValue)
    assert "100 levels" in fault.record.message


@pytest.mark.parametrize("said", ["\x00", "a\\\x00"])
def test_a_character_that_cannot_be_stored_is_refused(said: str) -> None:
    fault = refused(chat(messages=[{"role": "user", "content": said}]))
    assert isinstance(fault, InvalidValue)
    assert "U+0000" in fault.record.message


@pytest.mark.parametrize("said", ["\\u0000", "\\\\u0000", "\x01"])
def test_a_text_that_only_speaks_of_it_is_not(said: str) -> None:
    assert body.decode(chat(user=said), ChatRequest).user == said


def test_brackets_within_words_are_no_nesting() -> None:
    said = '[{"' * 500 + "\\" * 7
    decoded = body.decode(chat(messages=[{"role": "user", "content": said}]), ChatRequest)
    assert decoded.messages[0].content == said


TRICKY = st.text('a"\\[]{}', max_size=6)


@given(st.recursive(TRICKY, lambda inner: st.lists(inner) | st.dictionaries(TRICKY, inner), max_leaves=15))
def test_depth_is_counted_right(value: Any) -> None:
    def deep(each: Any) -> int:
        if isinstance(each, dict):
            each = list(each.values())
        return 1 + max(map(deep, each), default=0) if isinstance(each, list) else 0

    assert body.depth(msgspec.json.encode(value)) == deep(value)


async def test_a_body_in_pieces_is_joined() -> None:
    assert await received(b'{"a"', b": 1", b"}") == {"a": 1}


async def test_an_announced_length_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(BodyTooLarge, match="1000 bytes"):
        await received(headers={b"content-length": b"1001"})


async def test_a_body_that_grows_above_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLarge, match="1000 bytes"):
        await received(b"x" * 600, b"x" * 600)


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert len(await received(b'{"a": "' + b"x" * 991 + b'"}')) == 1


@pytest.mark.parametrize("media", [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"])
async def test_another_media_type_is_refused(media: bytes) -> None:
    with pytest.raises(WrongMediaType):
        await received(b"{}", headers={b"content-type": media})


@pytest.mark.parametrize("media", [b"application/json", b"Application/JSON; charset=utf-8", b"application/x+json"])
async def test_json_by_any_of_its_names_is_read(media: bytes) -> None:
    assert await received(b"{}", headers={b"content-type": media}) == {}


async def test_a_client_that_leaves_halfway_is_answered_by_nobody() -> None:
    with pytest.raises(ClientGone):
        await received(b"{", None)


async def test_a_client_that_falls_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PATIENCE", 0.01)

    async def never() -> Any:
        await asyncio.Event().wait()

    scope: Any = {"headers": []}
    with pytest.raises(NotJson, match="did not arrive"):
        await body.read(scope, never, dict, 1000)
