"""Logs: a turn can be followed through every process, and nothing that was said or is secret is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.journeys.api import CHAT, Answer, Api
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack, until

OURS = ("gateway", "context_fetch", "generation", "tool_execution", "memory_writeback", "records")


def lines_of(stack: Stack, process: str) -> Iterator[dict[str, Any]]:
    """What every process of that name logged; a second one writes `<name>.2.log`."""
    for path in sorted(stack.logs.glob(f"{process}*.log")):
        for line in path.read_text().splitlines():
            yield msgspec.json.decode(line)


def told_by(stack: Stack, name: str, value: str) -> set[str]:
    """Which processes logged something with this value under this name."""
    return {process for process in OURS if any(line.get(name) == value for line in lines_of(stack, process))}


@pytest.fixture(scope="module")
async def followed(api: Api) -> Answer:
    """A chat in a session that takes every way there is, the tools' included."""
    return await api.chat("What time is it?", cozy={"session_id": await api.session()})


async def test_the_turn_id_follows_the_turn_through_every_process(stack: Stack, followed: Answer) -> None:
    turn_id = followed.body["cozy"]["turn_id"]

    async def told_by_all() -> bool:
        return told_by(stack, "turn_id", turn_id) == set(OURS) - {"records"}

    await until(told_by_all, 5, lambda: f"only {told_by(stack, 'turn_id', turn_id)} logged the turn")


@pytest.mark.parametrize("process", OURS)
async def test_every_line_is_one_event_in_json(stack: Stack, followed: Answer, process: str) -> None:
    lines = list(lines_of(stack, process))
    assert lines
    for line in lines:
        assert line["timestamp"].endswith("Z")
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
        assert line["event"]
        assert line["process"] == process


async def test_a_requests_line_says_who_what_and_how_long(stack: Stack, followed: Answer) -> None:
    [line] = [
        line
        for line in lines_of(stack, "gateway")
        if line["event"] == "request_served" and line["request_id"] == followed.headers["x-request-id"]
    ]
    assert (line["method"], line["route"], line["status"]) == ("POST", CHAT, 200)
    assert line["latency_ms"] > 0
    assert line["user_id"]
    cozy = followed.body["cozy"]
    assert {name: line[name] for name in ("turn_id", "session_id", "personality_id")} == cozy


async def test_a_call_of_the_model_says_which_and_how_it_went(stack: Stack, followed: Answer) -> None:
    turn_id = followed.body["cozy"]["turn_id"]
    lines = [line for line in lines_of(stack, "generation") if line["event"] == "engine_called"]
    calls = [line for line in lines if line["turn_id"] == turn_id]
    said = [(call["provider"], call["model"], call["outcome"]) for call in calls]
    assert said == [("scripted", "scripted", "completed")] * 2
    assert all(call["duration_ms"] > 0 for call in calls)


async def test_it_can_be_seen_that_connections_are_used_again(stack: Stack, api: Api) -> None:
    turns = [await api.chat("Again.") for _ in range(3)]  # one more than there are workers
    asked = {turn.body["cozy"]["turn_id"] for turn in turns}
    calls = [line for line in lines_of(stack, "generation") if line["event"] == "engine_called"]
    assert True in {call["reused"] for call in calls if call["turn_id"] in asked}


async def test_each_process_says_at_its_start_which_configuration_it_has(stack: Stack) -> None:
    starts = [line for process in OURS for line in lines_of(stack, process) if line["event"] == "starting"]
    assert {line["process"] for line in starts} == set(OURS)
    assert len({line["config_version"] for line in starts}) == 1


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def secret_tool(canaries: Canaries) -> dict[str, Any]:
    about = {"type": "object", "properties": {canaries.word(): {"type": "string", "description": canaries.word()}}}
    return {"type": "function", "function": {"name": "lookup", "description": canaries.word(), "parameters": about}}


async def test_nothing_that_was_said_is_logged(
    stack: Stack, api: Api, http: aiohttp.ClientSession, canaries: Canaries
) -> None:
    """Words in every place of a request that takes any, on ways that succeed and on ways that fail."""
    word = canaries.word
    session_id = await api.session(title=word())
    said: list[dict[str, Any]] = [
        {"role": "system", "content": word()},
        {"role": "user", "content": [{"type": "text", "text": word()}, image(f"data:{word()}")]},
    ]
    more = {"user": word(), "metadata": {word(): word()}, "stop": word(), "tools": [secret_tool(canaries)]}
    await api.chat(said, cozy={"session_id": session_id}, headers={"idempotency-key": word()}, **more)
    await api.stream(said, headers={"x-scripted-call": f'lookup {{"{word()}": "{word()}"}}'}, **more)
    await api.stream(said, headers={"x-scripted-call": f'clock {{"timezone": "{word()}"}}'})
    await api.chat(said, headers={"x-scripted-call": f"clock {word()} is not json"})
    for failure in ("401", "500", "cut", "malformed"):
        await api.stream([*said, {"role": "user", "content": word()}], headers={"x-scripted-fail": failure})
    await api.chat([{"role": word(), "content": word()}])
    await api.chat("Hello.", model=word())
    await api.call("POST", CHAT, f'{{"model": "{word()}", '.encode())
    await api.call("PATCH", f"/v1/chat/sessions/{session_id}", {"title": word()})
    await api.call("GET", f"/v1/chat/sessions/{word()}?cursor={word()}")
    await Api(http, stack.url, f"sk-cozy-{word()}").chat(word())
    assert canaries.found_in(stack.logs) == []


def test_the_search_for_words_finds_one_that_is_there(tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / "some.log").write_text(f'{{"event":"said","text":"so {canaries.word()}"}}\n')
    assert canaries.found_in(tmp_path) == [f"some.log: {canaries.words[0]}"]


async def test_neither_keys_nor_passwords_are_logged(stack: Stack, api: Api) -> None:
    secrets = [api.key, "sk-cozy-admin", *(path.read_text() for path in stack.data_dir.glob("*.password"))]
    assert len(secrets) == 4
    for path in stack.logs.iterdir():
        text = path.read_text(errors="replace")
        assert [secret for secret in secrets if secret in text] == [], path.name
