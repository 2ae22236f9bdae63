"""A drill's client comes back until it was told the end, and keeps exactly what it was shown."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ops.drills import clients
from ops.drills.clients import Chat, Client
from tests.ops.drills.fickle import CUT, DRAINED, INTERRUPTED, STOPPED, TURN, Answer, Fickle, Stream, Whole

Talk = Callable[..., Coroutine[Any, Any, tuple[Chat, Fickle]]]


@pytest.fixture
async def talk(http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Talk]:
    """Talks to a server with these answers; the chat and the server afterwards."""
    monkeypatch.setattr(clients, "PATIENCE", 0.01)
    runners: list[web.AppRunner] = []

    async def talked(*answers: Answer, limit: float = 5, **about: Any) -> tuple[Chat, Fickle]:
        server, app = Fickle(*answers), web.Application()
        app.router.add_route("*", "/{path:.*}", server.answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        chat = Chat(number=1, session_id="s", tokens=2, gap_ms=0, key="k", **about)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        await Client(http, [url], limit).talk(chat, random.Random(1))
        return chat, server

    yield talked
    for runner in runners:
        await runner.cleanup()


async def test_a_reply_is_heard_out(talk: Talk) -> None:
    chat, server = await talk(Stream("Hello", " you"))
    assert (chat.text, chat.state, chat.turn_id, chat.errors) == ("Hello you", "completed", TURN, [])
    assert server.asked == [("POST", None)]


async def test_an_answer_in_one_piece_is_taken(talk: Talk) -> None:
    chat, _ = await talk(Whole("Hello"), streamed=False)
    assert (chat.text, chat.state, chat.turn_id) == ("Hello", "completed", TURN)


async def test_who_is_refused_for_now_asks_again(talk: Talk) -> None:
    chat, server = await talk(Answer(503), Answer(429), Stream("Hello"))
    assert (chat.text, chat.state) == ("Hello", "completed")
    assert chat.errors == ["503 ENGINE_OVERLOADED", "429 ENGINE_OVERLOADED"]
    assert [method for method, _ in server.asked] == ["POST"] * 3


async def test_who_is_refused_for_good_gives_up(talk: Talk) -> None:
    chat, _ = await talk(Answer(400, "VALIDATION_VALUE"))
    assert (chat.state, chat.turn_id, chat.errors) == ("refused", "", ["400 VALIDATION_VALUE"])


@pytest.mark.parametrize("ends", [CUT, DRAINED], ids=["cut", "drained"])
async def test_a_stream_that_ends_too_early_is_gone_on_with_behind_the_last_event(talk: Talk, ends: Any) -> None:
    chat, server = await talk(Stream("Hello", ends=ends), Stream(" you", first=3))
    assert (chat.text, chat.state) == ("Hello you", "completed")
    assert server.asked == [("POST", None), ("GET", "2")]


async def test_what_is_shown_twice_is_kept_once(talk: Talk) -> None:
    chat, _ = await talk(Stream("Hello", ends=CUT), Stream("Hello", " you"))
    assert chat.text == "Hello you"


async def test_a_client_goes_away_and_comes_back(talk: Talk) -> None:
    chat, server = await talk(Stream("a", "b", "c"), Stream("c", first=4), leaves_at=[2])
    assert (chat.text, chat.returns, chat.leaves_at) == ("abc", 1, [])
    assert server.asked == [("POST", None), ("GET", "3")]


async def test_an_end_in_the_middle_is_an_end(talk: Talk) -> None:
    chat, server = await talk(Stream("Hello", ends=INTERRUPTED))
    assert (chat.text, chat.state, chat.errors) == ("Hello", "interrupted", ["ENGINE_FAILED"])
    assert len(server.asked) == 1


async def test_who_hears_nothing_for_too_long_gives_up(talk: Talk) -> None:
    chat, _ = await talk(Stream("never", pause=2), limit=0.2)
    assert (chat.state, chat.text, chat.errors) == ("", "", ["gave up"])


async def test_the_longest_silence_is_measured_and_the_wait_for_the_first_word_apart(talk: Talk) -> None:
    chat, _ = await talk(Stream("a", "b", pause=0.2))
    assert chat.first_at - chat.asked_at >= 0.2
    assert 0.2 <= chat.silence < 0.4
    assert chat.silence_at == pytest.approx(chat.first_at, abs=0.05)


async def test_a_client_s_own_absence_is_no_silence(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "AWAY", (0.5, 0.5))
    chat, _ = await talk(Stream("a", "b"), Stream("b", first=3), leaves_at=[1])
    assert chat.returns == 1
    assert chat.ended_at - chat.first_at >= 0.5
    assert chat.silence < 0.3


async def test_a_client_says_stop_until_it_was_heard_and_listens_on(talk: Talk) -> None:
    chat, server = await talk(Stream("a", "b", "c", ends=STOPPED), Answer(503), Answer(202), stops_at=1)
    assert (chat.stopped, chat.state, chat.text) == (True, "cancelled", "abc")
    assert [path for path in server.paths if path.endswith("/cancel")] == [f"/v1/turns/{TURN}/cancel"] * 2
