"""A client that leaves for good: its reply is stopped where that was wished, and what it had said is kept."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from tests.journeys.api import CHAT, Api, parse, request
from tests.journeys.stack import until

SOON = 8.0
"""Seconds: two looks, a second apart, and the time of a busy machine."""
LONG = {"x-scripted-tokens": "400", "x-scripted-gap-ms": "50"}


async def left_after_a_word(api: Api, http: aiohttp.ClientSession, session_id: str, wish: str) -> str:
    """Ask, read the first words and go; the turn's id."""
    cozy = {"session_id": session_id, "on_disconnect": wish}
    body = {**request("Tell me more than I can bear.", cozy), "stream": True}
    headers = {**LONG, "authorization": f"Bearer {api.key}", "content-type": "application/json"}
    async with http.post(api.url + CHAT, data=msgspec.json.encode(body), headers=headers) as answer:
        raw = b""
        while raw.count(b"\n\n") < 4:
            raw += await answer.content.readany()
        answer.close()
    first: dict[str, Any] = parse(raw[: raw.index(b"\n\n") + 2])[0].data
    turn_id: str = first["cozy"]["turn_id"]
    return turn_id


async def test_a_reply_whose_client_left_is_stopped_and_kept_where_that_was_wished(
    api: Api, http: aiohttp.ClientSession
) -> None:
    session_id = await api.session()
    turn_id = await left_after_a_word(api, http, session_id, "cancel")

    async def stopped() -> bool:
        turn = await api.call("GET", f"/v1/turns/{turn_id}")
        return bool(turn.body["state"] == "cancelled")

    await until(stopped, SOON, lambda: "the reply goes on for nobody")
    assert await api.stored_reply(session_id)
