"""What a run is to do: frozen, checked, read from the command line elsewhere."""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

MOST_REQUESTS = 1_000_000
MOST_CONCURRENCY = 20_000


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server to drive, at `base` (an http URL without the trailing /v1)."""

    base: str
    host: str
    port: int
    prefix: str
    model: str
    key: str | None = None
    sessions: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to drive each target. Seconds throughout; `pace` is in tokens a second, None for no gap at all.

    With `open_over`, all requests are opened evenly over that time and `concurrency` plays no part.
    """

    target: Target
    requests: int
    compare: Target | None = None
    concurrency: int = 1
    tokens: int = 100
    pace: float | None = None
    open_over: float | None = None
    timeout: float = 120.0
    warmup: int = 0
    run_json: Path | None = None

    @property
    def users(self) -> int:
        """How many virtual users each target has."""
        return self.requests if self.open_over is not None else min(self.concurrency, self.requests)


def target(url: str, model: str, key: str | None = None, sessions: bool = False) -> Target:
    """The target behind a URL, with or without a trailing /v1.

    Raises ValueError for anything but plain http on this machine's loopback: a load belongs nowhere else.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{url}: expected http://127.0.0.1:PORT")
    if not is_loopback(parts.hostname):
        raise ValueError(f"{url}: only loopback addresses (127.0.0.0/8, localhost, ::1) are driven")
    if not (url + (key or "")).isprintable() or not (url + (key or "")).isascii():
        raise ValueError("URLs and keys are plain ASCII")
    port, prefix = parts.port or 80, parts.path.rstrip("/").removesuffix("/v1")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Target(
        base=f"http://{host}:{port}{prefix}",
        host=parts.hostname,
        port=port,
        prefix=prefix,
        model=model,
        key=key,
        sessions=sessions,
    )


def is_loopback(host: str) -> bool:
    """Whether `host` is localhost or an address that never leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def blocks(requests: int, concurrency: int) -> list[int]:
    """`requests` cut into shares for two servers taking turns.

    At most ten, and none shorter than four rounds of `concurrency`, so that the ends of a share, where not all
    users are busy, do not weigh.
    """
    count = max(1, min(10, requests // (4 * concurrency)))
    share, rest = divmod(requests, count)
    return [share + (number < rest) for number in range(count)]
