"""Keys: made, listed and revoked by an operator's commands, and gone within two seconds on a running system."""

from __future__ import annotations

import time
from typing import NamedTuple

import aiohttp
import psycopg
import pytest

from tests.journeys.api import Api
from tests.journeys.canaries import Canaries
from tests.journeys.stack import Stack, until

MODELS = "/v1/models"


class Made(NamedTuple):
    """A key, and who holds it."""

    api: Api
    user: str

    @property
    def prefix(self) -> str:
        """As much of it as `keys list` shows."""
        return self.api.key[:14]


@pytest.fixture
async def made(stack: Stack, http: aiohttp.ClientSession, canaries: Canaries) -> Made:
    """A new user's key."""
    user = canaries.word()
    status, key, errors = await stack.ops("keys", "create", "--user", user)
    assert status == 0, errors
    canaries.words.append(key.strip())
    return Made(Api(http, stack.url, key.strip()), user)


async def test_a_new_key_opens_the_door_at_once(made: Made) -> None:
    assert (await made.api.chat("Hello.")).status == 200


async def test_keys_are_listed_without_being_told(stack: Stack, made: Made) -> None:
    status, listed, _ = await stack.ops("keys", "list", "--user", made.user)
    assert status == 0
    assert made.prefix in listed
    assert made.api.key not in listed


async def test_a_revoked_key_stops_within_two_seconds(stack: Stack, made: Made) -> None:
    assert (await made.api.call("GET", MODELS)).status == 200
    status, _, errors = await stack.ops("keys", "revoke", made.prefix)
    assert status == 0, errors
    began = time.monotonic()

    async def refused() -> bool:
        return (await made.api.call("GET", MODELS)).status == 401

    await until(refused, 2, lambda: "it still opens the door")
    assert time.monotonic() - began < 2
    assert (await made.api.chat("Let me in.")).error["code"] == "AUTH_INVALID"


async def test_an_expired_key_is_told_so(stack: Stack, http: aiohttp.ClientSession, canaries: Canaries) -> None:
    user = canaries.word()
    _, key, _ = await stack.ops("keys", "create", "--user", user, "--expires-days", "1")
    async with await psycopg.AsyncConnection.connect(stack.entry("postgres").url) as connection:
        expire = "UPDATE api_keys SET expires_at = now() FROM users WHERE users.id = user_id AND name = %s"
        await connection.execute(expire, [user])
    answer = await Api(http, stack.url, key.strip()).call("GET", MODELS)
    assert (answer.status, answer.error["code"]) == (401, "AUTH_EXPIRED")


async def test_revoking_one_key_leaves_the_users_others(stack: Stack, made: Made, http: aiohttp.ClientSession) -> None:
    _, other, _ = await stack.ops("keys", "create", "--user", made.user)
    await stack.ops("keys", "revoke", made.prefix)
    assert (await Api(http, stack.url, other.strip()).call("GET", MODELS)).status == 200


async def test_two_users_of_one_name_are_one_user(stack: Stack, made: Made, http: aiohttp.ClientSession) -> None:
    _, key, _ = await stack.ops("keys", "create", "--user", made.user)
    session_id = await made.api.session()
    found = await Api(http, stack.url, key.strip()).call("GET", f"/v1/chat/sessions/{session_id}")
    assert found.status == 200


async def test_the_admins_key_is_valid_in_development(admin: Api) -> None:
    assert (await admin.call("GET", MODELS)).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "AUTH_MISSING"),
        ({"authorization": "Bearer "}, "AUTH_MISSING"),
        ({"authorization": "Bearer sk-cozy-nobody-has-this"}, "AUTH_INVALID"),
        ({"authorization": "Basic c2s6Y296eQ=="}, "AUTH_INVALID"),
        ({"authorization": "Bearer " + "k" * 2000}, "AUTH_INVALID"),
    ],
    ids=["none", "empty", "unknown", "another-scheme", "endless"],
)
async def test_without_a_valid_key_there_is_no_way_in(
    stack: Stack, http: aiohttp.ClientSession, headers: dict[str, str], code: str
) -> None:
    answer = await Api(http, stack.url, "").call("GET", MODELS, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, code)
    assert answer.error["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_chat_with_an_unknown_key_is_refused_with_its_own_status(
    stack: Stack, http: aiohttp.ClientSession, canaries: Canaries
) -> None:
    stream = await Api(http, stack.url, f"sk-cozy-{canaries.word()}").stream("Hello.")
    assert stream.status == 401
