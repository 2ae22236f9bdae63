"""Reading chunks from bytes."""

from __future__ import annotations

import pytest

from schemas.faults import EngineFailed, EngineOverloaded
from workers.engines.ai.chunks import Chunk
from workers.engines.ai.wire import ChunkReader

STREAM = (
    ': a comment\n\ndata: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\r\n\r\n'
    'event: x\nid: 7\ndata:{"choices":[{"delta":{"content":"né 🦊"},"logprobs":null}],"usage":null}\n\n'
    'data: {"choices":[{"delta":{"content":null,"reasoning":"hm"}}],"new":{"field":1}}\n\n'
    'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}\n\n'
    "data: [DONE]\n\n"
).encode()


def read(*pieces: bytes) -> tuple[ChunkReader, list[Chunk]]:
    reader = ChunkReader("p")
    return reader, [chunk for piece in pieces for chunk in reader.feed(piece)]


def test_a_stream_cut_at_any_byte_reads_the_same() -> None:
    _, whole = read(STREAM)
    for cut in range(len(STREAM)):
        reader, chunks = read(STREAM[:cut], STREAM[cut:])
        assert (chunks, reader.done) == (whole, True)


def test_a_stream_that_comes_byte_by_byte_reads_the_same() -> None:
    _, whole = read(STREAM)
    _, chunks = read(*(bytes([byte]) for byte in STREAM))
    assert chunks == whole


def test_what_servers_leave_out_or_add_is_tolerated() -> None:
    _, chunks = read(STREAM)
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert [delta.content for delta in deltas] == ["", "né 🦊", None, None]
    assert [delta.thought for delta in deltas] == ["", "", "hm", ""]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 3


def test_what_came_before_a_broken_event_is_still_said() -> None:
    reader, chunks = read(b'data: {"choices":[{"delta":{"content":"a"}}]}\ndata: {"choi\ndata: {"choices":[]}\n')
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["a"]
    assert isinstance(reader.fault, EngineFailed)


@pytest.mark.parametrize("broken", [b'{"choices":[{"delta":{"content":"\xff"}}]}', b'{"choices":7}', b"[1]", b"<html>"])
def test_an_event_that_is_no_chunk_is_a_fault(broken: bytes) -> None:
    reader, chunks = read(b"data: " + broken + b"\n\n")
    assert chunks == []
    assert isinstance(reader.fault, EngineFailed)


def test_an_empty_event_is_skipped() -> None:
    reader, chunks = read(b"data:\n\ndata: \r\n\r\n")
    assert (chunks, reader.fault, reader.done) == ([], None, False)


def test_an_error_object_becomes_the_fault_of_its_code() -> None:
    reader, _ = read(b'data: {"error":{"message":"slow down","code":429}}\n\n')
    assert isinstance(reader.fault, EngineOverloaded)


def test_nothing_is_read_after_the_end() -> None:
    reader, chunks = read(b'data: [DONE]\n\ndata: {"choices":[]}\n\n')
    assert (chunks, reader.done) == ([], True)


def test_an_event_without_an_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.engines.ai.wire.LONGEST_EVENT", 100)
    reader, _ = read(b"data: " + b"x" * 100)
    assert isinstance(reader.fault, EngineFailed)


def test_a_stream_is_complete_when_each_choice_has_finished() -> None:
    reader, _ = read(b'data: {"choices":[{"index":1,"finish_reason":"stop"}]}\n')
    assert reader.complete(1)
    assert not reader.complete(2)
