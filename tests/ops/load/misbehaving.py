"""A small chat server for the load program's tests; the model's name says how it behaves. Run as a process."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

NOTHING = {"connections": 0, "open": 0, "peak_open": 0, "models": [], "sessions": [], "keys": []}
SEEN: dict[str, Any] = deepcopy(NOTHING)
DONE = b"data: [DONE]\n\n"


def chunk(content: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    body = {"id": "c", "object": "chat.completion.chunk", "choices": [choice], "usage": None, **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def usage(tokens: int) -> bytes:
    body = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def error_event(code: str) -> bytes:
    return b'data: {"error":{"message":"a secret","type":"server_error","code":"%s"}}\n\n' % code.encode()


async def events(model: str, tokens: int, gap: float) -> AsyncIterator[bytes]:
    """The stream of a model. Ending early is the caller's sign to cut where the name says so."""
    yield b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":null}\n\n'
    if model == "mute":
        await asyncio.Event().wait()
    if model == "empty":
        yield DONE
        return
    half = tokens // 2
    for number in range(tokens):
        if number:
            await asyncio.sleep(gap)
        if number == half and model in ("cut", "undone"):
            return
        if number == half and model == "stuck":
            await asyncio.Event().wait()
        if number == half and model == "error-event":
            yield error_event("ENGINE_FAILED")
            return
        if number == half and model == "malformed":
            yield b'data: {"choices":[{"delta":{"content":"ab\n\n'
        yield chunk('\n "content":"" id: 3\n'[: 2 + number])
    if model != "no-usage":
        yield usage(tokens)
    yield DONE


async def stream(writer: asyncio.StreamWriter, model: str, headers: dict[str, str]) -> None:
    chunked = model != "close-delimited"
    framing = "transfer-encoding: chunked" if chunked else "connection: close"
    writer.write(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}\r\n\r\n".encode())
    tokens, gap = int(headers["x-scripted-tokens"]), float(headers["x-scripted-gap-ms"]) / 1000
    async for event in events(model, tokens, gap):
        writer.write(b"%x\r\n%s\r\n" % (len(event), event) if chunked else event)
        await writer.drain()
    if model == "undone" or model == "error-event":
        writer.write(b"0\r\n\r\n")
    elif model == "cut" or not chunked:
        writer.close()
    else:
        writer.write(b"0\r\n\r\n")


def answer(writer: asyncio.StreamWriter, status: int, body: Any) -> None:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    writer.write(head.encode() + content)


async def chat(writer: asyncio.StreamWriter, headers: dict[str, str], body: dict[str, Any]) -> None:
    model = body["model"]
    SEEN["models"].append(model)
    SEEN["keys"].append(headers.get("authorization"))
    if model == "busy":
        answer(writer, 503, {"error": {"code": "ENGINE_OVERLOADED", "message": "a secret"}})
    elif model == "plain-json":
        answer(writer, 200, {"choices": []})
    elif model == "silent":
        await asyncio.Event().wait()
    elif model == "hang-up":
        writer.close()
    elif model == "no-http":
        writer.write(b"what?\r\n\r\n")
    elif model == "in-session" and body.get("cozy", {}).get("session_id") not in SEEN["sessions"]:
        answer(writer, 404, {"error": {"code": "RESOURCE_NOT_FOUND"}})
    else:
        await stream(writer, model, headers)


async def request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"null")
    path = first.split()[1]
    SEEN["open"] += 1
    SEEN["peak_open"] = max(SEEN["peak_open"], SEEN["open"])
    try:
        if path == "/seen":
            answer(writer, 200, SEEN)
        elif path == "/forget":
            SEEN.update(deepcopy(NOTHING), open=1)
            answer(writer, 200, {})
        elif path == "/v1/chat/sessions":
            SEEN["sessions"].append(f"session-{len(SEEN['sessions'])}")
            answer(writer, 201, {"id": SEEN["sessions"][-1]})
        elif path == "/broken/v1/chat/sessions":
            answer(writer, 503, {"error": {"code": "STORAGE_UNAVAILABLE"}})
        else:
            await chat(writer, headers, body)
    finally:
        SEEN["open"] -= 1


async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    SEEN["connections"] += 1
    try:
        while not writer.is_closing():
            await request(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
