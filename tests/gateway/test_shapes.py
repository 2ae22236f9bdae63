"""The documented shapes of an answer are those that are sent."""

from __future__ import annotations

import msgspec

from gateway.collect import Collector
from gateway.shapes import ChatCompletion, ChatCompletionChunk
from gateway.sse import DONE, ChunkStream
from schemas.openai import FunctionCall, ToolCall, Usage
from schemas.replies import Delta, Finished, Progress, Start

COZY = {"turn_id": "t", "session_id": "s", "personality_id": None, "ignored_messages": 2}
DELTAS: list[Delta] = [
    Delta(epoch=1, index=1, text="Hello", reasoning="Hm.", logprobs={"content": []}),
    Delta(epoch=1, index=2, refusal="No.", choice=1),
    Delta(epoch=1, index=3, tool_calls=[ToolCall(id="c", function=FunctionCall(name="f", arguments="{}"))]),
]
END = Finished(epoch=1, index=3, finish_reasons=["stop", "length"], usage=Usage(), length=0, digest=0, stopped=True)


def test_a_whole_answer_is_as_documented() -> None:
    collector = Collector(turn_id="t", model="m", created=1, cozy=dict(COZY))
    for delta in DELTAS:
        collector.take(delta)
    collector.take(Start(epoch=2, index=3, attempt=2))
    answer = msgspec.json.decode(collector.whole(END), type=ChatCompletion)
    assert answer.choices[0].message.content == "Hello"
    assert answer.cozy.ignored_messages == 2


def test_every_chunk_is_as_documented() -> None:
    for include_usage in (True, False):
        chunks = ChunkStream(turn_id="t", model="m", created=1, cozy=COZY, include_usage=include_usage)
        sent = chunks.open() + b"".join(map(chunks.delta, DELTAS))
        sent += chunks.progress(Progress(epoch=1, tool="clock", call_id="c", state="running"))
        sent += chunks.taken_over(Start(epoch=2, index=3, attempt=2)) + chunks.finish(END)
        data = [line.removeprefix(b"data: ") for line in sent.splitlines() if line.startswith(b"data: {")]
        decoded = [msgspec.json.decode(each, type=ChatCompletionChunk) for each in data]
        assert len(decoded) == 8 + include_usage
        assert sent.endswith(DONE)
