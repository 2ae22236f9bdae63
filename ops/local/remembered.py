"""What stays the same from start to start: each embedded server's port and password."""

import errno
import json
import random
import secrets
import socket
from pathlib import Path

from ops.local.files import write_private

# Below the range the kernel hands to outgoing connections. A port inside it can be taken by any client while its
# server restarts, even by a client that is knocking on that very port.
LOWEST_PORT, HIGHEST_PORT = 20000, 32767
TRIES = 200
_given: set[int] = set()


def is_free(port: int) -> bool:
    """Whether nobody listens on `port` of any local address. Raises PermissionError where we may not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # All addresses, because a listener on any one of them would be in the way.
            probe.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


def free_port() -> int:
    """A port nobody listens on now, and that this process was not given before. Raises OSError if none is found."""
    for _ in range(TRIES):
        port = random.randint(LOWEST_PORT, HIGHEST_PORT)  # noqa: S311
        if port not in _given and is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")


def remembered_port(folder: Path, name: str) -> int:
    """The port `name` had last time, or another one (remembered from now on) if that is taken."""
    path = folder / "ports.json"
    try:
        ports: dict[str, int] = json.loads(path.read_text())
    except FileNotFoundError:
        ports = {}
    if name not in ports or not is_free(ports[name]):
        ports[name] = free_port()
        write_private(path, json.dumps(ports))
    return ports[name]


def remembered_password(path: Path) -> str:
    """The password in `path`, made up and written there (mode 0600) the first time."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return path.read_text()
