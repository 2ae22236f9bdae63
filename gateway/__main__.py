"""`python -m gateway`: the HTTP edge as a process."""

from __future__ import annotations

import asyncio
import socket
import sys

import structlog

from gateway import app
from gateway.server import listening, server_for
from gateway.services import Services
from ops.runtime import config, logs, process
from ops.runtime.health import Health
from ops.runtime.settings import Api

log = structlog.get_logger()


async def main(stopping: asyncio.Event) -> None:
    """Serve until told to stop; then close the port, let open streams end within the grace, and leave."""
    settings = config.load()
    logs.configure("gateway", settings)
    log.info("starting", config_version=settings.version, config=settings.summary)
    services = Services(settings)
    watched = Health("gateway", settings.observability.health_host)
    watched.check("nats", services.check)
    server = server_for(app.create(services), settings.api)
    listener = listening_or_leave(settings.api)
    await watched.serve(settings.observability.health_port)
    serving = asyncio.create_task(server.serve([listener]))
    told = asyncio.create_task(stopping.wait())
    watched.ready = True
    log.info("listening", host=settings.api.host, port=listener.getsockname()[1])
    await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
    log.info("draining", grace_s=settings.api.stream_grace)
    watched.ready = False
    services.draining.set()
    services.end_resumable()
    server.should_exit = True
    ending = asyncio.get_running_loop().call_later(settings.api.stream_grace, services.end_readers)
    await serving
    ending.cancel()
    told.cancel()
    await watched.close()
    log.info("stopped")


def listening_or_leave(api: Api) -> socket.socket:
    """The listening socket; a process that cannot have its address says so and ends."""
    try:
        return listening(api.host, api.port, shared=api.reuse_port)
    except OSError as error:
        log.critical("address_not_available", host=api.host, port=api.port, error=type(error).__name__)
        raise SystemExit(1) from None


if __name__ == "__main__":
    sys.exit(process.run(main))
