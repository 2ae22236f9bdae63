"""Sessions: conversations that the system keeps, each for its owner alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.journeys.api import Api, Upstream
from tests.journeys.canaries import Canaries
from tests.journeys.stack import until

SESSIONS = "/v1/chat/sessions"
NOWHERE = "0193a8c0-0000-7000-8000-000000000000"
FIELDS = {"id", "object", "title", "personality_id", "message_count", "last_message_at", "created_at"}


async def counted(api: Api, session_id: str, messages: int) -> dict[str, Any]:
    """The session, once so many messages have been counted into it."""
    found: dict[str, Any] = {}

    async def is_so() -> bool:
        found.update((await api.call("GET", f"{SESSIONS}/{session_id}")).body)
        return bool(found["message_count"] >= messages and found["title"])

    await until(is_so, 5, lambda: f"never counted: {found}")
    return found


async def test_a_new_session_is_empty_and_has_the_default_personality(api: Api) -> None:
    made = await api.call("POST", SESSIONS)
    assert made.status == 201
    assert set(made.body) == FIELDS
    assert (made.body["object"], made.body["personality_id"]) == ("chat.session", "default")
    assert (made.body["title"], made.body["message_count"], made.body["last_message_at"]) == (None, 0, None)


async def test_a_session_is_found_by_its_id_and_first_in_the_list(api: Api) -> None:
    made = await api.call("POST", SESSIONS, {"title": "Plans", "personality_id": "tutor"})
    found = await api.call("GET", f"{SESSIONS}/{made.body['id']}")
    listed = await api.call("GET", SESSIONS)
    assert found.body == made.body == listed.body["data"][0]
    assert (found.body["title"], found.body["personality_id"]) == ("Plans", "tutor")


async def test_a_session_can_be_changed_in_part(api: Api) -> None:
    path = f"{SESSIONS}/{await api.session(title='Old')}"
    renamed = await api.call("PATCH", path, {"title": "New"})
    assert (renamed.body["title"], renamed.body["personality_id"]) == ("New", "default")
    handed_over = await api.call("PATCH", path, {"personality_id": "tutor"})
    assert (handed_over.body["title"], handed_over.body["personality_id"]) == ("New", "tutor")


async def test_a_deleted_session_is_gone_with_its_messages(api: Api) -> None:
    session_id = await api.session()
    await api.chat("Soon forgotten.", cozy={"session_id": session_id})
    gone = await api.call("DELETE", f"{SESSIONS}/{session_id}")
    assert (gone.status, gone.body) == (204, "")
    for path in (f"{SESSIONS}/{session_id}", f"{SESSIONS}/{session_id}/messages"):
        assert (await api.call("GET", path)).status == 404
    assert (await api.call("DELETE", f"{SESSIONS}/{session_id}")).status == 404
    assert (await api.chat("Still there?", cozy={"session_id": session_id})).status == 404
    assert session_id not in [session["id"] for session in (await api.call("GET", SESSIONS)).body["data"]]


async def test_pages_of_sessions_follow_each_other_without_gap_or_repeat(stranger: Api) -> None:
    made = [await stranger.session(title=f"Number {number}") for number in range(5)]
    seen: list[str] = []
    cursor = ""
    for _ in range(3):
        page = (await stranger.call("GET", f"{SESSIONS}?limit=2{cursor}")).body
        seen += [session["id"] for session in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen[:5] == made[::-1]


async def test_pages_of_messages_follow_each_other_without_gap_or_repeat(api: Api) -> None:
    session_id = await api.session()
    for number in range(3):
        await api.chat(f"Message {number}.", cozy={"session_id": session_id})
    whole = await api.messages(session_id)
    seen: list[Any] = []
    page = {"has_more": True, "next_cursor": ""}
    while page["has_more"]:
        cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else ""
        page = (await api.call("GET", f"{SESSIONS}/{session_id}/messages?limit=4{cursor}")).body
        seen += page["data"]
    assert seen == whole
    assert [message["role"] for message in whole] == ["user", "assistant"] * 3
    assert page["next_cursor"] is None


async def test_a_stored_message_says_what_it_is(api: Api) -> None:
    session_id = await api.session()
    answer = await api.chat("Remember this.", cozy={"session_id": session_id})
    asked, said = await api.messages(session_id)
    assert set(asked) == set(said) == {"id", "role", "content", "turn_id", "parent_id", "created_at", "metadata"}
    assert (asked["content"], said["content"]) == ("Remember this.", answer.text)
    assert asked["turn_id"] == said["turn_id"] == answer.body["cozy"]["turn_id"]
    assert answer.body["cozy"]["session_id"] == session_id


async def test_a_session_is_named_after_its_first_message_and_counts_its_messages(api: Api) -> None:
    session_id = await api.session()
    await api.chat("How do tides work?", cozy={"session_id": session_id})
    session = await counted(api, session_id, 2)
    assert (session["title"], session["message_count"]) == ("How do tides work?", 2)
    assert session["last_message_at"] > session["created_at"]


async def test_a_title_that_was_given_stays(api: Api) -> None:
    session_id = await api.session(title="Mine")
    await api.chat("Something else.", cozy={"session_id": session_id})
    assert (await counted(api, session_id, 2))["title"] == "Mine"


async def test_the_second_turn_sees_the_first(api: Api, upstream: Upstream, word: str) -> None:
    cozy = {"session_id": await api.session()}
    first = await api.stream("My dog is called Rex.", cozy=cozy)
    await api.chat(f"What did I say? {word}", cozy=cozy)
    system, *said = (await upstream.asked_once(word))["messages"]
    assert system["role"] == "system"
    assert [message["content"] for message in said] == ["My dog is called Rex.", first.text, f"What did I say? {word}"]


async def test_only_what_follows_the_last_reply_is_new(api: Api, upstream: Upstream, word: str) -> None:
    cozy = {"session_id": await api.session()}
    first = await api.chat("One.", cozy=cozy)
    sent = [
        {"role": "user", "content": "One."},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Two."},
        {"role": "user", "content": word},
    ]
    second = await api.chat(sent, cozy=cozy)
    assert second.body["cozy"]["ignored_messages"] == 2
    said = (await upstream.asked_once(word))["messages"][1:]
    assert [message["content"] for message in said] == ["One.", first.text, "Two.", word]


async def test_a_system_message_is_for_its_turn_alone(api: Api, upstream: Upstream, canaries: Canaries) -> None:
    now, later = canaries.word(), canaries.word()
    session_id = await api.session()
    cozy = {"session_id": session_id}
    await api.chat([{"role": "system", "content": "Sing."}, {"role": "user", "content": now}], cozy=cozy)
    await api.chat(later, cozy=cozy)
    with_it, without = (await upstream.asked(now))[0], await upstream.asked_once(later)
    assert {"role": "system", "content": "Sing."} in with_it["messages"]
    assert {"role": "system", "content": "Sing."} not in without["messages"]
    assert {message["role"] for message in await api.messages(session_id)} == {"user", "assistant"}


async def test_a_request_without_a_new_message_is_refused(api: Api) -> None:
    cozy = {"session_id": await api.session()}
    answer = await api.chat([{"role": "assistant", "content": "I spoke last."}], cozy=cozy)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", "messages")


async def test_a_session_takes_one_choice_only(api: Api) -> None:
    answer = await api.chat("Twice.", cozy={"session_id": await api.session()}, n=2)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", "n")


async def test_a_chat_without_a_session_is_in_no_list(stranger: Api) -> None:
    answer = await stranger.chat("In passing.")
    listed = await stranger.call("GET", f"{SESSIONS}?limit=100")
    assert answer.body["cozy"]["session_id"] not in [session["id"] for session in listed.body["data"]]


@pytest.mark.parametrize("path", ["", "/messages"])
async def test_anothers_session_cannot_be_read(api: Api, stranger: Api, path: str) -> None:
    answer = await stranger.call("GET", f"{SESSIONS}/{await api.session()}{path}")
    assert (answer.status, answer.error["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_anothers_session_cannot_be_changed_or_deleted(api: Api, stranger: Api) -> None:
    path = f"{SESSIONS}/{await api.session(title='Mine')}"
    assert (await stranger.call("PATCH", path, {"title": "Theirs"})).status == 404
    assert (await stranger.call("DELETE", path)).status == 404
    assert (await api.call("GET", path)).body["title"] == "Mine"


async def test_nobody_can_talk_in_anothers_session(api: Api, stranger: Api) -> None:
    session_id = await api.session()
    answer = await stranger.chat("Let me in.", cozy={"session_id": session_id})
    assert (answer.status, answer.error["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert await api.messages(session_id) == []


@pytest.mark.parametrize("id_", [NOWHERE, "no-id-at-all", "%00", "%20"])
async def test_a_session_that_is_not_there_or_cannot_be_is_not_found(api: Api, id_: str) -> None:
    assert (await api.call("GET", f"{SESSIONS}/{id_}")).status == 404


async def test_a_turn_says_how_it_went(api: Api) -> None:
    answer = await api.chat("Tell me of it.", headers={"x-scripted-tokens": "4"})
    turn = (await api.call("GET", answer.headers["location"])).body
    assert (turn["object"], turn["state"], turn["attempts"]) == ("chat.turn", "completed", 1)
    assert (turn["id"], turn["session_id"]) == tuple(answer.body["cozy"][name] for name in ("turn_id", "session_id"))
    assert (turn["model"], turn["personality_id"]) == ("cozy/default", "default")
    assert turn["usage"] == answer.body["usage"] | {
        name: turn["usage"][name] for name in turn["usage"] if name not in answer.body["usage"]
    }
    assert 0 < turn["timings"]["first_token_ms"] <= turn["timings"]["finished_ms"]
    assert turn["finished_at"] >= turn["created_at"]


async def test_anothers_turn_is_not_found(api: Api, stranger: Api) -> None:
    answer = await api.chat("Mine alone.")
    assert (await stranger.call("GET", answer.headers["location"])).status == 404


async def test_two_messages_at_once_are_answered_one_after_the_other(api: Api, upstream: Upstream, word: str) -> None:
    session_id = await api.session()
    slow = {"x-scripted-tokens": "10", "x-scripted-gap-ms": "50"}
    first = asyncio.create_task(api.stream(f"First {word}.", cozy={"session_id": session_id}, headers=slow))
    await until(lambda: _asked(upstream, word), 5, lambda: "the first was never asked")
    second = await api.stream(f"Second {word}.", cozy={"session_id": session_id})
    stored = [message["content"] for message in await api.messages(session_id)]
    assert stored == [f"First {word}.", (await first).text, f"Second {word}.", second.text]
    assert (await first).text in str((await upstream.asked(word))[-1]["messages"])


async def test_many_messages_at_once_are_all_answered(api: Api) -> None:
    session_id = await api.session()
    said = [f"Message {number}." for number in range(6)]
    answers = await asyncio.gather(*(api.chat(text, cozy={"session_id": session_id}) for text in said))
    assert [answer.status for answer in answers] == [200] * 6
    stored = await api.messages(session_id)
    assert [message["role"] for message in stored] == ["user", "assistant"] * 6
    assert sorted(message["content"] for message in stored[::2]) == said


async def test_a_busy_session_may_refuse(api: Api, upstream: Upstream, word: str) -> None:
    session_id = await api.session()
    slow = {"x-scripted-tokens": "10", "x-scripted-gap-ms": "80"}
    first = asyncio.create_task(api.stream(f"First {word}.", cozy={"session_id": session_id}, headers=slow))
    await until(lambda: _asked(upstream, word), 5, lambda: "the first was never asked")
    refused = await api.stream("Second.", cozy={"session_id": session_id, "on_busy": "reject"})
    assert (refused.status, refused.headers["x-should-retry"]) == (409, "false")
    assert b'"code":"RESOURCE_SESSION_BUSY"' in refused.raw
    assert (await first).whole
    assert len(await api.messages(session_id)) == 2


async def test_a_reply_that_fails_lets_the_next_message_go_on(api: Api, upstream: Upstream, word: str) -> None:
    session_id = await api.session()
    breaks = {"x-scripted-fail": "cut", "x-scripted-fail-after": "8", "x-scripted-gap-ms": "50"}
    first = asyncio.create_task(api.stream(f"First {word}.", cozy={"session_id": session_id}, headers=breaks))
    await until(lambda: _asked(upstream, word), 5, lambda: "the first was never asked")
    second = await api.chat("Second.", cozy={"session_id": session_id})
    assert (await first).error is not None
    assert 'You said: "Second."' in second.text


async def test_a_result_that_no_call_asked_for_is_refused(api: Api) -> None:
    session_id = await api.session()
    result = [{"role": "tool", "tool_call_id": "call_never_made", "content": "42"}]
    answer = await api.chat(result, cozy={"session_id": session_id})
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "VALIDATION_VALUE", "messages")
    assert await api.messages(session_id) == []


async def _asked(upstream: Upstream, word: str) -> bool:
    return bool(await upstream.asked(word))
