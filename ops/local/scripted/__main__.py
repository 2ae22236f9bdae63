"""Starts the scripted model server: `python -m ops.local.scripted --port N [--host 127.0.0.1]`."""

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys

from ops.local.scripted import controls
from ops.local.scripted.app import App
from ops.local.scripted.connection import Connection
from ops.local.scripted.pace import Pace

_BACKLOG = 4096
_MOST_FILES = 65_536


async def serve(host: str, port: int) -> None:
    """Answer requests until SIGTERM or SIGINT, then close every connection at once."""
    loop = asyncio.get_running_loop()
    app = App(Pace(loop), controls.from_environment(os.environ), os.environ.get("SCRIPTED_API_KEY") or None)
    connections: set[Connection] = set()
    server = await loop.create_server(lambda: Connection(app.handle, connections), host, port, backlog=_BACKLOG)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    chosen = server.sockets[0].getsockname()[1]
    print(f"http://{f'[{host}]' if ':' in host else host}:{chosen}", flush=True)
    gc.freeze()  # what is here now stays; looking through it again and again is a cost of every reply
    await stop.wait()
    server.close()
    for connection in list(connections):
        connection.transport.abort()
    await server.wait_closed()


def allow_many_connections() -> None:
    """Raise this process's limit of open files: the usual 1,024 is less than a load run opens streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Run the server; 1 if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m ops.local.scripted", description="The scripted model server.")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one; the URL is printed")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    try:
        allow_many_connections()
        run(serve(options.host, options.port))
    except (OSError, ValueError) as error:
        print(f"scripted: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
