"""ops/local/remembered.py."""

import socket
from pathlib import Path

from ops.local.remembered import HIGHEST_PORT, LOWEST_PORT, free_port, is_free, remembered_password, remembered_port


def test_a_port_with_a_listener_on_any_address_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not is_free(listener.getsockname()[1])


def test_free_ports_are_never_given_twice_and_lie_below_those_of_clients() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert all(LOWEST_PORT <= port <= HIGHEST_PORT for port in ports)


def test_a_port_is_the_same_next_time_until_somebody_else_has_it(tmp_path: Path) -> None:
    port = remembered_port(tmp_path, "nats")
    assert remembered_port(tmp_path, "nats") == port
    assert remembered_port(tmp_path, "postgres") != port
    with socket.create_server(("127.0.0.1", port)):
        other = remembered_port(tmp_path, "nats")
    assert other != port
    assert remembered_port(tmp_path, "nats") == other


def test_a_password_is_long_private_and_the_same_next_time(tmp_path: Path) -> None:
    path = tmp_path / "nats.password"
    password = remembered_password(path)
    assert len(password) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert remembered_password(path) == password != remembered_password(tmp_path / "another")
