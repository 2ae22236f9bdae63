"""What every request has: an id, a line in the log, a count, safe headers, an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from gateway.edge import Edge
from ops.local.embedded_nats import EmbeddedNats
from tests.gateway.conftest import ADMIN_KEY, AUTH, USER, Running, running
from tests.gateway.peers import RecordsPeer


@pytest.fixture(autouse=True)
def _records(records: RecordsPeer) -> None:
    """Somebody who knows the keys."""


@pytest.mark.parametrize("sent", ["abc-123_X.y", "a" * 128])
async def test_a_sane_id_of_the_callers_is_kept(gateway: Running, sent: str) -> None:
    _, headers, body = await gateway.call("GET", "/v1/nothing", headers={**AUTH, "x-request-id": sent})
    assert headers["x-request-id"] == body["error"]["request_id"] == sent


@pytest.mark.parametrize("sent", ["", "two words", "a" * 129, "ümlaut", 'quote"'])
async def test_a_strange_id_is_replaced(gateway: Running, sent: str) -> None:
    _, headers, _ = await gateway.call("GET", "/livez", headers={"x-request-id": sent})
    assert headers["x-request-id"] != sent
    assert len(headers["x-request-id"]) == 36


async def test_each_request_without_an_id_gets_its_own(gateway: Running) -> None:
    ids = [(await gateway.call("GET", "/livez"))[1]["x-request-id"] for _ in range(3)]
    assert len(set(ids)) == 3


async def test_a_request_is_one_line_with_its_route_and_no_path(gateway: Running) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await gateway.call("GET", "/v1/models/secret-name", headers={**AUTH, "x-request-id": "r-1"})
    (line,) = [line for line in lines if line["event"] == "request_served"]
    assert line.pop("latency_ms") > 0
    assert line == {
        "event": "request_served",
        "log_level": "info",
        "method": "GET",
        "route": "/v1/models/{model_id}",
        "status": 404,
        "request_id": "r-1",
        "user_id": USER.user_id,
    }


async def test_a_request_says_nothing_of_the_one_before_it_on_the_connection(gateway: Running) -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await gateway.call("GET", "/v1/models")
        await gateway.call("GET", "/nothing", headers={})
    assert "user_id" not in lines[-1]
    assert lines[-1]["route"] == "(none)"


async def test_requests_are_counted_by_route_and_status(gateway: Running) -> None:
    labels = {"method": "GET", "route": "/v1/models", "status": "401"}
    before = REGISTRY.get_sample_value("cozy_requests_total", labels) or 0
    await gateway.call("GET", "/v1/models", headers={})
    assert REGISTRY.get_sample_value("cozy_requests_total", labels) == before + 1


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/nothing", 404, "RESOURCE_NOT_FOUND"),
    ("GET", "/v1/chat/sessions/not/a/path", 404, "RESOURCE_NOT_FOUND"),
    ("PUT", "/v1/models", 405, "VALIDATION_METHOD"),
    ("GET", "/v1/chat/completions", 405, "VALIDATION_METHOD"),
    ("POST", "/livez", 405, "VALIDATION_METHOD"),
])  # fmt: skip
async def test_what_is_not_there_has_the_one_error_body(
    gateway: Running, method: str, path: str, status: int, code: str
) -> None:
    found, headers, body = await gateway.call(method, path)
    assert (found, body["error"]["code"]) == (status, code)
    assert body["error"]["request_id"] == headers["x-request-id"]
    assert set(body["error"]) == {"message", "type", "param", "code", "request_id"}


async def test_a_wrong_method_is_told_the_right_ones(gateway: Running) -> None:
    _, headers, _ = await gateway.call("PUT", "/v1/models")
    assert "GET" in headers["allow"].split(", ")


async def test_answers_are_safe_to_show_and_are_not_kept(gateway: Running) -> None:
    _, headers, _ = await gateway.call("GET", "/v1/models")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("headers", [AUTH, {"x-api-key": ADMIN_KEY}])
async def test_a_key_opens_the_door(gateway: Running, headers: dict[str, str]) -> None:
    assert (await gateway.call("GET", "/v1/models", headers=headers))[0] == 200


@pytest.mark.parametrize(("headers", "code"), [
    ({}, "AUTH_MISSING"),
    ({"authorization": "Bearer sk-unknown"}, "AUTH_INVALID"),
    ({"authorization": "Basic c2s="}, "AUTH_INVALID"),
])  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/sessions", "/v1/personalities"])
async def test_without_a_valid_key_there_is_nothing(
    gateway: Running, path: str, headers: dict[str, str], code: str
) -> None:
    problem = await gateway.problem("GET", path, headers=headers)
    assert (problem["status"], problem["code"], problem["type"]) == (401, code, "authentication_error")


async def test_every_route_of_the_api_is_behind_the_guard(gateway: Running) -> None:
    for method, path in [("POST", "/v1/chat/completions"), ("PATCH", "/v1/chat/sessions/x"), ("GET", "/v1/turns/x")]:
        assert (await gateway.problem(method, path, headers={}))["code"] == "AUTH_MISSING"


async def test_a_mistake_of_ours_is_told_without_its_words_and_logged_with_its_place(
    gateway: Running, records: RecordsPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(_: Any) -> None:
        raise KeyError("somebody's words")

    monkeypatch.setattr(type(gateway.services.config.personalities), "all", mistake)
    with capture_logs() as lines:
        problem = await gateway.problem("GET", "/v1/personalities")
    assert (problem["status"], problem["code"], problem["type"]) == (500, "ENGINE_INTERNAL", "server_error")
    assert "words" not in problem["message"]
    assert isinstance(lines[0]["exc_info"], KeyError)


async def test_an_answer_that_breaks_off_is_logged_and_raises_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "GET", "headers": []}
    with capture_logs() as lines:
        await Edge(app)(scope, send, send)  # type: ignore[arg-type]
    assert [line["event"] for line in lines] == ["response_broken", "request_served"]
    assert len(sent) == 1


PREFLIGHT = {
    "origin": "https://chat.example.com",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization",
}


async def test_pages_of_other_origins_are_locked_out(gateway: Running) -> None:
    status, headers, _ = await gateway.call("OPTIONS", "/v1/models", headers=PREFLIGHT)
    assert status == 401
    assert "access-control-allow-origin" not in headers


async def test_pages_of_an_origin_in_the_settings_are_let_in(nats: EmbeddedNats, settings_folder: Path) -> None:
    async with running(nats.url, settings_folder, COZY_API__CORS_ORIGINS='["https://chat.example.com"]') as gateway:
        status, headers, _ = await gateway.call("OPTIONS", "/v1/models", headers=PREFLIGHT)
        assert (status, headers["access-control-allow-origin"]) == (204, "https://chat.example.com")
        _, headers, _ = await gateway.call("OPTIONS", "/v1/models", headers={**PREFLIGHT, "origin": "https://x"})
        assert "access-control-allow-origin" not in headers
