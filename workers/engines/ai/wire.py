"""Server-sent events as bytes, in whatever pieces the network brings them, read into chunks."""

from __future__ import annotations

import msgspec

from schemas.faults import Fault
from workers.engines.ai import errors
from workers.engines.ai.chunks import Chunk

LONGEST_EVENT = 16 * 1024 * 1024
"""Bytes. A longer line means that whatever answers is not a model server."""
_DONE = b"[DONE]"
_decode = msgspec.json.Decoder(Chunk).decode


class ChunkReader:
    """Reads one stream. Bytes are never decoded before their line is whole, so a character cannot be torn.

    Only `data:` lines matter: OpenAI's stream is one JSON object a line. Comments, ids and event names are skipped.
    """

    __slots__ = ("_finished", "_provider", "_rest", "done", "fault")

    def __init__(self, provider: str) -> None:
        self.done = False
        """`[DONE]` was read. Nothing is read after it."""
        self.fault: Fault | None = None
        """The stream cannot be read on. Raise it after what came before it was passed on."""
        self._provider = provider
        self._rest = b""
        self._finished: set[int] = set()

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that these bytes complete, up to the end or a fault."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        chunks: list[Chunk] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._read(line[5:], chunks)
                if self.done or self.fault is not None:
                    return chunks
        if len(self._rest) > LONGEST_EVENT:
            self.fault = errors.unreadable(self._provider)
        return chunks

    def complete(self, choices: int) -> bool:
        """Whether the stream may end here: it said `[DONE]`, or gave each of its choices a finish reason."""
        return self.done or len(self._finished) >= choices

    def _read(self, payload: bytes, chunks: list[Chunk]) -> None:
        try:
            chunk = _decode(payload)
        except errors.UNREADABLE:
            self._read_odd(payload.strip())
            return
        if chunk.error:
            self.fault = errors.from_event(self._provider, chunk.error)
            return
        for choice in chunk.choices:
            if choice.finish_reason:
                self._finished.add(choice.index)
        chunks.append(chunk)

    def _read_odd(self, payload: bytes) -> None:
        # Asked only of what is not a chunk: the end, an empty event, or a fault.
        if payload == _DONE:
            self.done = True
        elif payload:
            self.fault = errors.unreadable(self._provider)
