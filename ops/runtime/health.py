"""How a process says that it is well: /livez, /readyz and /metrics, by a small HTTP server of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ops.runtime.failures import describe

log = structlog.get_logger()

CHECK_SECONDS = 1.0
"""For all checks of one answer together; one that takes longer has failed."""
REQUEST_SECONDS = 5.0
"""For whoever asks, to say what they want and to take the answer."""
MAX_REQUEST_BYTES = 8192
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

Check = Callable[[], Awaitable[dict[str, Any] | None]]
Answer = tuple[int, str, bytes]
"""Status, content type, body."""


class Health:
    """The health of one process. `ready` is the process's own word: it has begun, and is not about to end."""

    def __init__(self, process: str, host: str = "127.0.0.1") -> None:
        self.process = process
        self.host = host
        self.ready = False
        self._born = time.monotonic()
        self._checks: dict[str, Check] = {}
        self._running: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._server: asyncio.Server | None = None

    def check(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`, which answers with what is worth knowing or raises."""
        self._checks[name] = check

    async def serve(self, port: int) -> int:
        """Answer on this port, 0 for a free one; gives the port. Raises OSError where it is taken."""
        self._server = await asyncio.start_server(self._converse, self.host, port, limit=MAX_REQUEST_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        log.info("health_served", port=bound)
        return bound

    async def close(self) -> None:
        """Stop answering, and stop checks that still run."""
        for task in self._running.values():
            task.cancel()
        if self._server:
            self._server.close()
            self._server = None

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process can do its work, and what each check says, within a second."""
        tasks = {name: self._started(name, check) for name, check in self._checks.items()}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=CHECK_SECONDS)
        checks = {name: _said(task) for name, task in tasks.items()}
        well = self.ready and all(said["ok"] for said in checks.values())
        return well, {"process": self.process, "ready": self.ready, "checks": checks}

    def _started(self, name: str, check: Check) -> asyncio.Task[dict[str, Any]]:
        # A check that hangs is asked once, not once per question: it would pile up behind whoever hangs.
        running = self._running.get(name)
        if running is None or running.done():
            running = self._running[name] = asyncio.create_task(_timed(check), name=f"check-{name}")
        return running

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                words = request.decode("latin-1").split(" ", 2)
                if len(words) == 3:
                    writer.write(_http(words[0], *await self._answer(words[0], words[1].partition("?")[0])))
                    await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # whoever asked is gone, slow, or does not speak HTTP, and asks again
        except Exception:
            log.exception("health_answer_failed")
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return _json(405, {"error": "only GET"})
        if path == "/livez":
            # That this is answered is the proof: the event loop turns.
            return _json(200, {"status": "ok", "uptime_s": round(time.monotonic() - self._born, 1)})
        if path == "/readyz":
            well, said = await self.report()
            return _json(200 if well else 503, {"status": "ok" if well else "not ready", **said})
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest()
        return _json(404, {"error": "there are /livez, /readyz and /metrics"})


async def _timed(check: Check) -> dict[str, Any]:
    began = time.perf_counter()
    said = await check() or {}
    return {"ok": True, "ms": round((time.perf_counter() - began) * 1000, 1), **said}


def _said(task: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
    if not task.done():
        return {"ok": False, "error": f"no answer within {CHECK_SECONDS:g} s"}
    if task.cancelled():
        return {"ok": False, "error": "cancelled"}
    error = task.exception()
    return {"ok": False, "error": describe(error)["type"]} if error else task.result()


def _json(status: int, body: dict[str, Any]) -> Answer:
    return status, "application/json", msgspec.json.encode(body)


def _http(method: str, status: int, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
