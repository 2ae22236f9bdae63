"""Pure: from a chat request to the turn it asks for. What can be refused without asking anyone is refused here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from ops.runtime.config import Config
from schemas import codec, ids
from schemas.faults import InvalidValue, ModelNotFound, NotFound
from schemas.openai import AssistantMessage, ChatRequest, CozyOptions, ToolMessage, UserMessage
from schemas.records import Caller
from schemas.turns import TurnRequested

PERSONALITY_PREFIX = "cozy/"
KEY_LENGTH = 255
_QUOTED = re.compile(r'^"((?:[^"\\]|\\["\\])*)"$')


class _Options(CozyOptions, frozen=True, forbid_unknown_fields=True):
    """Our own part of a request, where a key that does not exist is a typing error of the caller's."""


class ChatBody(ChatRequest, frozen=True, kw_only=True):
    """A chat request at the edge. Between our processes a key that one side does not know yet is passed over."""

    cozy: _Options | None = None


def check(request: ChatRequest, config: Config) -> None:
    """Raise the fault of a request that no worker needs to see."""
    cozy = request.cozy
    if cozy and cozy.session_id and not ids.is_id(cozy.session_id):
        raise NotFound("There is no such session.", param="cozy.session_id")
    if cozy and cozy.session_id and (request.n or 1) > 1:
        raise InvalidValue("n must be 1 in a session: a conversation has one next message.", param="n")
    if cozy and cozy.personality_id and config.personalities.get(cozy.personality_id) is None:
        raise InvalidValue("There is no such personality.", param="cozy.personality_id")
    if request.model.startswith(PERSONALITY_PREFIX):
        known = config.personalities.get(request.model.removeprefix(PERSONALITY_PREFIX)) is not None
    else:
        known = config.catalogue is not None and config.catalogue.resolve(request.model) is not None
    if not known:
        raise ModelNotFound("There is no such model. GET /v1/models lists them.", param="model")
    if cozy and cozy.session_id and not _brings_news(request):
        raise InvalidValue("The request brings no new user message or tool result.", param="messages")


def _brings_news(request: ChatRequest) -> bool:
    """Whether anything that a session would store follows the last assistant message."""
    for message in reversed(request.messages):
        if isinstance(message, UserMessage | ToolMessage):
            return True
        if isinstance(message, AssistantMessage):
            return False
    return False


def idempotency_key(header: str | None) -> str | None:
    """The key of an `Idempotency-Key` header, a structured-header string: quoted or bare."""
    if header is None:
        return None
    text = header.strip()
    if quoted := _QUOTED.match(text):
        text = quoted[1].replace('\\"', '"').replace("\\\\", "\\")
    if not 0 < len(text) <= KEY_LENGTH:
        raise InvalidValue(f"The Idempotency-Key must have 1 to {KEY_LENGTH} characters.", param="Idempotency-Key")
    return text


def fingerprint(request: ChatRequest) -> str:
    """The same for the same request, however its JSON was spelled (keys we ignore do not count)."""
    try:
        return hashlib.sha256(codec.encode(request)).hexdigest()
    except OverflowError:
        raise InvalidValue("A number in the request does not fit into 64 bits.") from None


def turn_from(
    request: ChatRequest,
    caller: Caller,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    request_id: str,
    now: float,
    fresh_id: str,
    scripted_allowed: bool,
) -> TurnRequested:
    """The turn a request asks for, `now` in Unix seconds. Where and how long its verdict is awaited, admission says."""
    key, retried, scripted = None, False, {}
    for name, value in headers:
        if name == b"idempotency-key":
            key = idempotency_key(value.decode("latin-1"))
        elif name == b"x-stainless-retry-count":
            retried = value.isdigit() and int(value) > 0
        elif scripted_allowed and name.startswith(b"x-scripted-"):
            scripted[name.decode("latin-1")] = value.decode("latin-1")
    turn_id = ids.keyed_id(caller.user_id, key) if key else fresh_id
    return TurnRequested(
        turn_id=turn_id,
        user_id=caller.user_id,
        request_id=request_id,
        request=request,
        fingerprint=fingerprint(request),
        verdict_subject="",
        asked_at=now,
        expires_at=now,
        scripted=scripted,
        keyed=key is not None,
        retried=retried,
    )


def hidden_session(turn_id: str) -> str:
    """The session of a turn that names none; the worker that accepts it derives the same."""
    return ids.part_of(turn_id, "session")
