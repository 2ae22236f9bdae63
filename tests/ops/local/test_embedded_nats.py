"""ops/local/embedded_nats.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
import psutil
import pytest

from ops.local.embedded_nats import EmbeddedNats
from tests.ops.local.watching import alive


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    embedded = EmbeddedNats(tmp_path)
    await embedded.start()
    yield embedded
    await embedded.kill()


async def store(url: str, text: bytes) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="KEPT", subjects=["kept"])
    await stream.publish("kept", text)
    await client.close()


async def stored(url: str) -> bytes:
    client = await nats.connect(url)
    message = await client.jetstream().get_last_msg("KEPT", "kept")
    await client.close()
    return message.data or b""


async def test_it_takes_messages_of_8_mb_and_serves_this_machine_only(server: EmbeddedNats) -> None:
    client = await nats.connect(server.url)
    assert client.max_payload == 8 * 1024 * 1024
    await client.close()
    listening = [at.laddr.ip for at in psutil.Process(server.pid).net_connections() if at.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


async def test_nobody_gets_in_without_the_password(server: EmbeddedNats) -> None:
    async def silent(error: Exception) -> None: ...

    stranger = "nats://cozy:guess@" + server.url.partition("@")[2]
    with pytest.raises(nats.errors.Error, match="Authorization Violation"):
        await nats.connect(stranger, allow_reconnect=False, error_cb=silent)


async def test_started_again_it_has_its_address_and_its_streams(server: EmbeddedNats, tmp_path: Path) -> None:
    await store(server.url, b"kept")
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    again = EmbeddedNats(tmp_path)
    assert await again.start() == server.url
    assert await stored(again.url) == b"kept"
    await again.stop()


async def test_after_a_kill_it_has_its_address_and_its_streams(server: EmbeddedNats) -> None:
    await store(server.url, b"kept")
    url = server.url
    await server.kill()
    assert await server.start() == url
    assert await stored(url) == b"kept"


async def test_what_it_keeps_is_closed_to_others(server: EmbeddedNats, tmp_path: Path) -> None:
    assert (tmp_path / "nats" / "js" / "jetstream").is_dir()
    assert (tmp_path / "nats").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "nats" / "nats.conf").stat().st_mode & 0o777 == 0o600
    assert "password" not in " ".join(psutil.Process(server.pid).cmdline())
