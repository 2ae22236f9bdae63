"""A reply as bytes: the chunks of a stream, and the one object of an answer that is not streamed."""

from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any

import msgspec

from ops.local.scripted.content import Choice, PlannedCall, Reply

DONE = b"data: [DONE]\n\n"
MALFORMED = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":\n\n'
_FINGERPRINT = "fp_scripted"

_encode = msgspec.json.Encoder().encode


class Chunks:
    """The events of one streamed reply. Only what differs between two chunks is encoded again."""

    def __init__(self, identity: str, created: int, model: str, *, usage: bool, top_logprobs: int | None) -> None:
        head = _encode({"id": identity, "object": "chat.completion.chunk", "created": created, "model": model})
        self._open = b"data: " + head[:-1] + b',"system_fingerprint":"' + _FINGERPRINT.encode() + b'","choices":['
        self._close = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._usage = usage
        self._top_logprobs = top_logprobs

    def opening(self, reply: Reply) -> bytes:
        """The role of each choice."""
        delta = b'{"role":"assistant","content":""}'
        return b"".join(self._event(index, delta) for index in range(len(reply.choices)))

    def events(self, reply: Reply) -> Iterator[bytes]:
        """One event for each token; the choices take turns."""
        tracks = [self._track(index, choice) for index, choice in enumerate(reply.choices)]
        if len(tracks) == 1:
            return tracks[0]
        return (event for turn in zip_longest(*tracks) for event in turn if event is not None)

    def closing(self, reply: Reply) -> bytes:
        """The finish of each choice, the usage if wanted, and the end."""
        ends = [self._event(index, b"{}", finish=_encode(choice.finish)) for index, choice in enumerate(reply.choices)]
        if self._usage:
            ends.append(self._open + b'],"usage":' + _encode(usage_of(reply)) + b"}\n\n")
        return b"".join(ends) + DONE

    def _track(self, index: int, choice: Choice) -> Iterator[bytes]:
        content = self._texts(index, b"content", choice.content)
        if self._top_logprobs is not None:
            content = self._with_logprobs(index, choice.content)
        return chain(
            self._texts(index, b"reasoning_content", choice.reasoning),
            content,
            chain.from_iterable(self._call(index, place, call) for place, call in enumerate(choice.calls)),
        )

    def _texts(self, index: int, key: bytes, texts: Iterable[str]) -> Iterator[bytes]:
        before = b'%b{"index":%d,"delta":{"%b":' % (self._open, index, key)
        after = b'},"logprobs":null,"finish_reason":null}' + self._close
        return (before + _encode(text) + after for text in texts)

    def _with_logprobs(self, index: int, texts: Iterable[str]) -> Iterator[bytes]:
        for text in texts:
            logprobs = _encode({"content": [_logprob(text, self._top_logprobs or 0)], "refusal": None})
            yield self._event(index, _encode({"content": text}), logprobs=logprobs)

    def _call(self, index: int, place: int, call: PlannedCall) -> Iterator[bytes]:
        head = {"index": place, "id": call.id, "type": "function"}
        yield self._call_event(index, {**head, "function": {"name": call.name, "arguments": ""}})
        for fragment in call.fragments:
            yield self._call_event(index, {"index": place, "function": {"arguments": fragment}})

    def _call_event(self, index: int, call: dict[str, Any]) -> bytes:
        return self._event(index, _encode({"tool_calls": [call]}))

    def _event(self, index: int, delta: bytes, *, finish: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, logprobs, finish)
        return self._open + choice + self._close


def completion(
    reply: Reply, identity: str, created: int, model: str, *, usage: bool, top_logprobs: int | None
) -> bytes:
    """The whole reply as one chat.completion."""
    made: dict[str, Any] = {
        "id": identity,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "system_fingerprint": _FINGERPRINT,
        "choices": [_whole(index, choice, top_logprobs) for index, choice in enumerate(reply.choices)],
    }
    return _encode({**made, "usage": usage_of(reply)} if usage else made)


def usage_of(reply: Reply) -> dict[str, Any]:
    """What the reply counts as."""
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.count,
        "total_tokens": reply.prompt_tokens + reply.count,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reply.reasoning_count},
    }


def _whole(index: int, choice: Choice, top_logprobs: int | None) -> dict[str, Any]:
    content = None if choice.calls else "".join(choice.content)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.fragments)},
            }
            for call in choice.calls
        ]
    logprobs = None
    if top_logprobs is not None:
        logprobs = {"content": [_logprob(text, top_logprobs) for text in choice.content], "refusal": None}
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}


def _logprob(text: str, top: int) -> dict[str, Any]:
    """The token as nearly certain, its alternatives as ever less so."""
    others = [_token(text + "~" * place, -0.1 - place) for place in range(top)]
    return {**_token(text, -0.1), "top_logprobs": others}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
