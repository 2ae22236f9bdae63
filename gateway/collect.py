"""Pure: a reply's events gathered into OpenAI's whole chat.completion."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.sse import encode_usage
from schemas.replies import Delta, Finished, Progress, Start


class Collector:
    """Gathers one reply that is answered at once."""

    def __init__(self, *, turn_id: str, model: str, created: int, cozy: dict[str, Any]) -> None:
        self._head = {"id": f"chatcmpl-{turn_id}", "object": "chat.completion", "created": created, "model": model}
        self._cozy = cozy
        self._said: dict[int, list[Delta]] = {}

    def take(self, event: Delta | Progress | Start) -> None:
        """One event more."""
        if isinstance(event, Delta):
            self._said.setdefault(event.choice, []).append(event)
        elif isinstance(event, Start):
            self._cozy["attempts"] = event.attempt

    def whole(self, end: Finished) -> bytes:
        """The answer, as JSON."""
        if end.stopped:
            self._cozy |= {"state": "cancelled", "stopped": True}
        choices = [self._choice(index, reason) for index, reason in enumerate(end.finish_reasons)]
        usage = msgspec.Raw(encode_usage(end.usage))
        return msgspec.json.encode({**self._head, "choices": choices, "usage": usage, "cozy": self._cozy})

    def _choice(self, index: int, reason: str) -> dict[str, Any]:
        said = self._said.get(index, [])
        text = "".join(delta.text for delta in said)
        calls = [call for delta in said for call in delta.tool_calls or ()]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if calls else ""),
            "refusal": "".join(delta.refusal for delta in said) or None,
        }
        if reasoning := "".join(delta.reasoning for delta in said):
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
        return {"index": index, "message": message, "logprobs": _logprobs(said), "finish_reason": reason}


def _logprobs(said: list[Delta]) -> dict[str, Any] | None:
    """Every token's log probabilities, joined per key; None where the model gave none."""
    joined: dict[str, Any] = {}
    for delta in said:
        for key, value in (delta.logprobs or {}).items():
            if isinstance(value, list):
                joined.setdefault(key, []).extend(value)
            else:
                joined.setdefault(key, value)
    return joined or None
