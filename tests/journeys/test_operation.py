"""What whoever runs the system asks of it: its health, its documentation, its probes, its numbers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ops.local.run_file import read_run_file
from tests.journeys.api import LIMIT, Api
from tests.journeys.stack import Stack, until

SESSIONS = "/v1/chat/sessions"
STAGES = ("context_fetch", "generation", "tool_execution", "memory_writeback", "records")


@pytest.fixture
async def frozen_records(stack: Stack, api: Api) -> AsyncIterator[None]:
    """The records worker stands still, and goes on afterwards. The caller is known before."""
    await api.call("GET", "/v1/models")
    stack.signal("records", signal.SIGSTOP)
    yield
    stack.signal("records", signal.SIGCONT)
    await stack.until_well()


async def text_at(http: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with http.get(url, timeout=LIMIT) as answer:
        return answer.status, await answer.text()


async def test_everything_started_is_listed(stack: Stack) -> None:
    entries = read_run_file(stack.data_dir / "run.json")
    assert {entry.name for entry in entries} == {"nats", "postgres", "scripted", "gateway", "generation.2", *STAGES}
    assert stack.entry("gateway").url == stack.url


async def test_the_welcome_has_an_address_a_key_and_a_request_to_copy(stack: Stack) -> None:
    said = stack.output.read_text()
    for needed in (stack.url, "sk-cozy-dev", "sk-cozy-admin", f"curl -N {stack.url}/v1/chat/completions", "stand-in"):
        assert needed in said


async def test_the_request_to_copy_streams_a_reply(stack: Stack) -> None:
    _, _, rest = stack.output.read_text().partition("  curl -N ")
    command = "curl -sN " + rest.partition("\n\n")[0]
    process = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 15)
    assert out.endswith(b"data: [DONE]\n\n")


async def test_health_names_every_dependency(api: Api) -> None:
    health = await api.call("GET", "/health")
    assert (health.status, health.body["status"]) == (200, "ok")
    assert set(health.body["dependencies"]) == {"nats", "records", "database", "generation", "engines.scripted"}


@pytest.mark.usefixtures("frozen_records")
async def test_health_without_the_records_worker_is_degraded(api: Api) -> None:
    async def degraded() -> bool:
        health = await api.call("GET", "/health")
        away = health.body["dependencies"]["records"]["status"] == "away"
        return (health.status, health.body["status"], away) == (200, "degraded", True)

    await until(degraded, 3, lambda: "nothing was noticed")


@pytest.mark.usefixtures("frozen_records")
async def test_without_the_records_worker_known_callers_still_chat(api: Api) -> None:
    assert (await api.chat("Still there?")).status == 200


@pytest.mark.usefixtures("frozen_records")
async def test_without_the_records_worker_sessions_are_refused_within_three_seconds(api: Api) -> None:
    began = time.monotonic()
    answers = await asyncio.gather(api.call("GET", SESSIONS), api.call("POST", SESSIONS, {}))
    assert time.monotonic() - began < 3
    assert {(answer.status, answer.error["code"]) for answer in answers} == {(503, "STORAGE_UNAVAILABLE")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)


async def test_a_chat_that_nobody_accepts_is_refused_after_ten_seconds_and_never_answered(
    stack: Stack, api: Api
) -> None:
    session_id = await api.session()
    stack.signal("context_fetch", signal.SIGSTOP)
    try:
        answer = await api.chat("Anyone?", cozy={"session_id": session_id})
    finally:
        stack.signal("context_fetch", signal.SIGCONT)
    assert (answer.status, answer.error["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    await api.chat("Now?", cozy={"session_id": session_id})
    assert [message["content"] for message in await api.messages(session_id)][::2] == ["Now?"]


@pytest.mark.parametrize("stage", STAGES)
async def test_every_stage_answers_its_probes_and_shows_its_numbers(
    stack: Stack, http: aiohttp.ClientSession, stage: str
) -> None:
    url = stack.entry(stage).url
    assert [(await text_at(http, url + path))[0] for path in ("/livez", "/readyz")] == [200, 200]
    status, numbers = await text_at(http, url + "/metrics")
    assert status == 200
    assert "\ncozy_" in numbers


async def test_the_gateway_answers_probes_without_a_key(stack: Stack, http: aiohttp.ClientSession) -> None:
    assert [(await text_at(http, stack.url + path))[0] for path in ("/livez", "/readyz")] == [200, 200]


async def test_the_documentation_names_every_endpoint(stack: Stack, http: aiohttp.ClientSession, api: Api) -> None:
    paths = (await api.call("GET", "/docs/openapi.json")).body["paths"]
    found = {(method, path) for path, methods in paths.items() for method in methods}
    assert found >= {
        ("post", "/v1/chat/completions"),
        ("get", "/v1/models"),
        ("get", "/v1/personalities"),
        ("post", SESSIONS),
        ("get", SESSIONS),
        ("get", SESSIONS + "/{session_id}"),
        ("patch", SESSIONS + "/{session_id}"),
        ("delete", SESSIONS + "/{session_id}"),
        ("get", SESSIONS + "/{session_id}/messages"),
        ("get", "/v1/turns/{turn_id}"),
        ("get", "/health"),
    }
    status, page = await text_at(http, stack.url + "/docs")
    assert status == 200
    assert "/v1/chat/completions" in page


async def test_the_page_is_served_in_development(stack: Stack, http: aiohttp.ClientSession) -> None:
    status, page = await text_at(http, stack.url + "/")
    assert status == 200
    assert page.startswith("<!doctype html>")


async def test_a_second_start_on_the_same_folder_is_refused(stack: Stack) -> None:
    status, said, errors = await stack.ops("up")
    assert status == 1
    assert str(stack.data_dir) in said + errors


async def test_release_on_a_running_system_changes_nothing(stack: Stack, api: Api) -> None:
    addresses = {"NATS_URL": stack.entry("nats").url, "DATABASE_URL": stack.entry("postgres").url}
    status, said, errors = await stack.ops("release", **addresses)
    assert status == 0, errors
    assert "none, all were there" in said
    assert (await api.chat("Still well?")).status == 200
