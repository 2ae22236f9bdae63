"""What a chat request can be refused for before anybody is asked, and the turn it asks for."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway import body, intake
from gateway.intake import ChatBody
from ops.runtime import config
from ops.runtime.config import Config
from schemas import codec
from schemas.faults import Fault, InvalidValue
from schemas.ids import new_id
from schemas.openai import ChatRequest
from schemas.records import Caller
from schemas.turns import TurnRequested

HI = [{"role": "user", "content": "Hi"}]
SAID = [*HI, {"role": "assistant", "content": "Yes"}]
HOUSE = {"role": "system", "content": "Be brief."}
RESULT = {"role": "tool", "content": "a cat", "tool_call_id": "c"}
SESSION = {"session_id": new_id()}


@pytest.fixture(scope="module")
def settings() -> Config:
    return config.load({"APP_ENV": "test", "SCRIPTED_URL": "http://127.0.0.1:9"})


def request(messages: Any = HI, **more: Any) -> ChatBody:
    asked = {"model": "cozy/default", "messages": messages} | more
    return body.decode(json.dumps(asked).encode(), ChatBody)


def refused(**changes: Any) -> Fault:
    with pytest.raises(Fault) as raised:
        request(**changes)
    return raised.value


def test_a_key_of_ours_that_does_not_exist_is_refused_and_not_repeated() -> None:
    fault = refused(cozy={"sesion_id": "x"})
    assert isinstance(fault, InvalidValue)
    assert fault.record.param == "cozy"
    assert "sesion_id" not in fault.record.message


def test_a_key_of_openai_s_that_we_do_not_know_is_passed_over() -> None:
    assert request(brand_new=1).model == "cozy/default"


def test_a_worker_reads_what_the_edge_has_checked_and_passes_over_what_it_does_not_know_yet() -> None:
    said = {"model": "m", "messages": HI, "cozy": {"on_busy": "reject"}}
    plain = msgspec.convert(said, ChatRequest)
    assert codec.encode(request(**said)) == codec.encode(plain)
    newer = {"model": "m", "messages": HI, "cozy": {"on_busy": "reject", "brand_new": 1}}
    read = codec.decode(codec.encode(newer), ChatRequest)
    assert read.cozy
    assert read.cozy.on_busy == "reject"


@pytest.mark.parametrize("messages", [SAID, [HOUSE], [*SAID, HOUSE]])
def test_a_request_with_nothing_new_for_its_session_is_refused(settings: Config, messages: Any) -> None:
    with pytest.raises(InvalidValue) as raised:
        intake.check(request(messages, cozy=SESSION), settings)
    assert raised.value.record.param == "messages"


@pytest.mark.parametrize("messages", [HI, [*SAID, *HI], [*SAID, RESULT], [*SAID, *HI, HOUSE]])
def test_what_follows_the_last_reply_is_news(settings: Config, messages: Any) -> None:
    intake.check(request(messages, cozy=SESSION), settings)


def test_alone_a_conversation_may_end_with_the_assistant(settings: Config) -> None:
    intake.check(request(SAID), settings)


def turn(*headers: tuple[bytes, bytes], **changes: Any) -> TurnRequested:
    return intake.turn_from(
        request(**changes), Caller(user_id="u"), headers,
        request_id="r", now=1.0, fresh_id="fresh", scripted_allowed=False,
    )  # fmt: skip


def test_a_key_names_the_turn_whatever_the_body_and_the_spelling() -> None:
    first, second = turn((b"idempotency-key", b"k")), turn((b"idempotency-key", b'"k"'), seed=1)
    assert first.turn_id == second.turn_id != "fresh"
    assert first.fingerprint != second.fingerprint
    assert first.keyed


def test_an_sdk_s_second_try_is_known_by_its_header() -> None:
    assert not turn((b"x-stainless-retry-count", b"0")).retried
    again = turn((b"x-stainless-retry-count", b"1"))
    assert (again.retried, again.keyed, again.turn_id) == (True, False, "fresh")


def test_the_fingerprint_is_of_the_meaning_and_not_of_the_spelling() -> None:
    assert turn(cozy={"on_busy": None}).fingerprint == turn(cozy={}).fingerprint
    assert turn().fingerprint == intake.fingerprint(
        ChatRequest(**{n: getattr(request(), n) for n in ("model", "messages")})
    )
