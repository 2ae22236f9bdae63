"""Sessions, messages and turns over HTTP: what is asked of the records worker, and what is refused before that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ops.local.embedded_nats import EmbeddedNats
from schemas.faults import FaultRecord, InvalidValue, NotFound
from schemas.ids import is_id, new_id
from schemas.openai import Usage
from schemas.records import (
    CreateSession,
    DeleteSession,
    GetSession,
    GetTurn,
    ListMessages,
    ListSessions,
    Page,
    Session,
    StopTurn,
    StoredMessage,
    Turn,
    UpdateSession,
)
from tests.gateway.conftest import AUTH, USER, Running, connected, running
from tests.gateway.peers import RecordsPeer

SESSIONS = "/v1/chat/sessions"
ID = "01a1fd00-0000-7000-8000-000000000001"
SESSION = Session(
    id=ID, title=None, personality_id="default", message_count=0, last_message_at=None,
    created_at="2026-01-02T03:04:05Z",
)  # fmt: skip
SHOWN = {
    "id": ID,
    "object": "chat.session",
    "title": None,
    "personality_id": "default",
    "message_count": 0,
    "last_message_at": None,
    "created_at": "2026-01-02T03:04:05Z",
}
MESSAGE = StoredMessage(
    id=new_id(), role="user", content=[{"type": "text", "text": "hello"}], turn_id=None, parent_id=None,
    created_at="2026-01-02T03:04:05Z", metadata={},
)  # fmt: skip
TURN = Turn(
    id=ID, state="failed", session_id=ID, model="m", personality_id=None, attempts=1, usage=Usage(total_tokens=3),
    timings={"accepted": 1.5}, created_at="2026-01-02T03:04:05Z", finished_at=None,
    error=FaultRecord(code="ENGINE_FAILED", message="The model server failed.", details={"status": 500}),
)  # fmt: skip


@pytest.fixture
def asked(records: RecordsPeer) -> list[Any]:
    """A peer that answers everything about sessions; the questions that reached it."""
    seen: list[Any] = []

    def answer(value: Any) -> Any:
        def taken(query: Any) -> Any:
            seen.append(query)
            return value

        return taken

    page = Page(data=[SESSION], has_more=True, next_cursor="bmV4dA")
    for kind, value in {
        CreateSession: SESSION, GetSession: SESSION, UpdateSession: SESSION, DeleteSession: None, ListSessions: page,
        ListMessages: Page(data=[MESSAGE]), GetTurn: TURN, StopTurn: TURN,
    }.items():  # fmt: skip
        records.answers[kind] = answer(value)
    return seen


async def test_a_session_is_made_with_an_id_of_ours(gateway: Running, asked: list[Any]) -> None:
    status, _, body = await gateway.call("POST", SESSIONS, json={"personality_id": "tutor", "title": "Maths"})
    assert (status, body) == (201, SHOWN)
    (query,) = asked
    assert is_id(query.session_id)
    assert (query.user_id, query.personality_id, query.title) == (USER.user_id, "tutor", "Maths")


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"title": None, "personality_id": None, "more": 1}}])
async def test_a_session_needs_nothing(gateway: Running, asked: list[Any], sent: dict[str, Any]) -> None:
    assert (await gateway.call("POST", SESSIONS, **sent))[0] == 201
    assert (asked[0].personality_id, asked[0].title) == ("default", None)


@pytest.mark.parametrize(("body", "param"), [
    ({"personality_id": "nobody"}, "personality_id"),
    ({"personality_id": 5}, "personality_id"),
    ({"title": "x" * 201}, "title"),
])  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", SESSIONS), ("PATCH", f"{SESSIONS}/{ID}")])
async def test_a_wrong_value_is_refused_unasked(
    gateway: Running, asked: list[Any], method: str, path: str, body: Any, param: str
) -> None:
    problem = await gateway.problem(method, path, json=body)
    assert (problem["status"], problem["code"], problem["param"]) == (400, "VALIDATION_VALUE", param)
    assert asked == []


async def test_sessions_are_listed_by_the_page(gateway: Running, asked: list[Any]) -> None:
    status, _, body = await gateway.call("GET", f"{SESSIONS}?limit=7&cursor=abc")
    assert (status, body) == (200, {"object": "list", "data": [SHOWN], "has_more": True, "next_cursor": "bmV4dA"})
    assert asked == [ListSessions(user_id=USER.user_id, limit=7, cursor="abc")]


async def test_a_page_holds_twenty_unless_asked_otherwise(gateway: Running, asked: list[Any]) -> None:
    await gateway.call("GET", f"{SESSIONS}?cursor=")
    assert asked == [ListSessions(user_id=USER.user_id, limit=20)]


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/{ID}/messages", "/v1/personalities"])
@pytest.mark.parametrize(("query", "param"), [
    ("limit=0", "limit"), ("limit=101", "limit"), ("limit=many", "limit"), ("limit=", "limit"),
    ("cursor=not%20one", "cursor"), ("cursor=" + "x" * 600, "cursor"),
])  # fmt: skip
async def test_a_page_that_cannot_be_is_refused(
    gateway: Running, asked: list[Any], path: str, query: str, param: str
) -> None:
    problem = await gateway.problem("GET", f"{path}?{query}")
    assert (problem["status"], problem["code"], problem["param"]) == (400, "VALIDATION_VALUE", param)


async def test_one_session_is_shown(gateway: Running, asked: list[Any]) -> None:
    assert (await gateway.call("GET", f"{SESSIONS}/{ID}"))[::2] == (200, SHOWN)
    assert asked == [GetSession(user_id=USER.user_id, session_id=ID)]


@pytest.mark.parametrize(("body", "title", "personality"), [
    ({"title": "New"}, "New", None),
    ({"title": None}, "", None),
    ({"title": ""}, "", None),
    ({"personality_id": "tutor"}, None, "tutor"),
    ({}, None, None),
])  # fmt: skip
async def test_what_is_left_out_of_a_change_stays(
    gateway: Running, asked: list[Any], body: Any, title: str | None, personality: str | None
) -> None:
    assert (await gateway.call("PATCH", f"{SESSIONS}/{ID}", json=body))[::2] == (200, SHOWN)
    assert asked == [UpdateSession(user_id=USER.user_id, session_id=ID, title=title, personality_id=personality)]


async def test_a_personality_cannot_be_taken_away(gateway: Running, asked: list[Any]) -> None:
    problem = await gateway.problem("PATCH", f"{SESSIONS}/{ID}", json={"personality_id": None})
    assert (problem["status"], problem["param"]) == (400, "personality_id")


async def test_a_deleted_session_leaves_nothing_to_say(gateway: Running, asked: list[Any]) -> None:
    status, headers, body = await gateway.call("DELETE", f"{SESSIONS}/{ID}")
    assert (status, body) == (204, "")
    assert asked == [DeleteSession(user_id=USER.user_id, session_id=ID)]
    assert "x-request-id" in headers


async def test_messages_are_shown_as_they_were_sent(gateway: Running, asked: list[Any]) -> None:
    status, _, body = await gateway.call("GET", f"{SESSIONS}/{ID}/messages")
    assert status == 200
    assert body["data"][0]["content"] == [{"type": "text", "text": "hello"}]
    assert asked == [ListMessages(user_id=USER.user_id, session_id=ID, limit=20)]


@pytest.mark.parametrize("id_", ["x", "0193A8C0-0000-7000-8000-000000000001", "%00", "..", "0" * 36])
@pytest.mark.parametrize("path", [SESSIONS + "/{}", SESSIONS + "/{}/messages", "/v1/turns/{}"])
async def test_a_malformed_id_is_simply_not_found(gateway: Running, asked: list[Any], path: str, id_: str) -> None:
    problem = await gateway.problem("GET", path.format(id_))
    assert (problem["status"], problem["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert asked == []


async def test_another_users_session_is_not_found(gateway: Running, records: RecordsPeer) -> None:
    def refuse(_: Any) -> None:
        raise NotFound

    records.answers[GetSession] = refuse
    assert (await gateway.problem("GET", f"{SESSIONS}/{ID}"))["code"] == "RESOURCE_NOT_FOUND"


async def test_a_cursor_of_somebody_elses_is_the_callers_mistake(gateway: Running, records: RecordsPeer) -> None:
    def refuse(_: Any) -> None:
        raise InvalidValue("No.", param="cursor")

    records.answers[ListSessions] = refuse
    problem = await gateway.problem("GET", f"{SESSIONS}?cursor=abc")
    assert (problem["status"], problem["param"]) == (400, "cursor")


async def test_without_the_records_worker_sessions_wait_three_seconds_at_most(
    gateway: Running, records: RecordsPeer
) -> None:
    await gateway.call("GET", "/v1/models")
    records.silent = True
    began = time.monotonic()
    status, headers, body = await gateway.call("GET", SESSIONS)
    assert time.monotonic() - began < 3
    assert (status, body["error"]["code"], headers["retry-after"]) == (503, "STORAGE_UNAVAILABLE", "2")


async def test_a_turn_is_shown_with_its_error(gateway: Running, asked: list[Any]) -> None:
    status, _, body = await gateway.call("GET", f"/v1/turns/{ID}")
    assert (status, body["object"], body["state"], body["usage"]["total_tokens"]) == (200, "chat.turn", "failed", 3)
    assert body["error"]["details"] == {"status": 500}
    assert asked == [GetTurn(user_id=USER.user_id, turn_id=ID)]


async def test_a_stop_is_taken_and_answered_with_the_turn(gateway: Running, asked: list[Any]) -> None:
    status, _, body = await gateway.call("POST", f"/v1/turns/{ID}/cancel")
    assert (status, body["object"], body["id"]) == (202, "chat.turn", ID)
    assert asked == [StopTurn(user_id=USER.user_id, turn_id=ID)]


async def test_another_s_turn_and_a_malformed_id_cannot_be_stopped(gateway: Running, records: RecordsPeer) -> None:
    def refuse(_: Any) -> None:
        raise NotFound

    records.answers[StopTurn] = refuse
    for turn_id in (ID, "x"):
        problem = await gateway.problem("POST", f"/v1/turns/{turn_id}/cancel")
        assert (problem["status"], problem["code"]) == (404, "RESOURCE_NOT_FOUND")


@pytest.fixture
async def discreet(nats: EmbeddedNats, settings_folder: Path) -> AsyncIterator[Running]:
    """A gateway that keeps the details of errors to itself, and takes small bodies only."""
    environ = {"COZY_API__ERROR_DETAILS": "false", "COZY_API__MAX_BODY_BYTES": "2000"}
    async with running(nats.url, settings_folder, **environ) as found:
        yield await connected(found)


async def test_details_stay_where_the_settings_keep_them(discreet: Running, asked: list[Any]) -> None:
    for method, path in (("GET", f"/v1/turns/{ID}"), ("POST", f"/v1/turns/{ID}/cancel")):
        _, _, body = await discreet.call(method, path)
        assert body["error"]["details"] is None
    assert "details" not in await discreet.problem("POST", SESSIONS, json={"title": "x" * 3000})


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b'{"title": "' + b"x" * 500


@pytest.mark.parametrize("sent", [{"json": {"title": "x" * 3000}}, {"data": 5}])
async def test_a_body_above_the_limit_is_refused_naming_it(
    discreet: Running, asked: list[Any], sent: dict[str, Any]
) -> None:
    if "data" in sent:
        sent = {"data": pieces(5), "headers": {**AUTH, "content-type": "application/json"}}
    problem = await discreet.problem("POST", SESSIONS, **sent)
    assert (problem["status"], problem["code"]) == (413, "VALIDATION_BODY_TOO_LARGE")
    assert "2000 bytes" in problem["message"]


@pytest.mark.parametrize(("data", "media", "status", "code"), [
    (b"{", "application/json", 400, "VALIDATION_JSON"),
    (b'{"title": "\xff"}', "application/json", 400, "VALIDATION_JSON"),
    (b"title=x", "application/x-www-form-urlencoded", 415, "VALIDATION_MEDIA_TYPE"),
    (b"{}", "text/plain", 415, "VALIDATION_MEDIA_TYPE"),
    (b"[" * 100_000, "application/json", 400, "VALIDATION_VALUE"),
])  # fmt: skip
async def test_a_body_that_is_none_is_refused(
    gateway: Running, asked: list[Any], data: bytes, media: str, status: int, code: str
) -> None:
    problem = await gateway.problem("POST", SESSIONS, data=data, headers={**AUTH, "content-type": media})
    assert (problem["status"], problem["code"]) == (status, code)
