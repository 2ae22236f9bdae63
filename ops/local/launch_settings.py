"""What `python -m ops up` is told by its environment and arguments."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.local.procfile import parse_pools

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_PORT = 8000
GATEWAY = "gateway"
REUSE_PORT = "COZY_API__REUSE_PORT"


class SettingError(ValueError):
    """A variable that makes no sense. The message names it."""


@dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """The variables of `make run`."""

    port: int  # where the gateway listens: PORT
    data_folder: Path  # where everything is kept: DATA_DIR
    nats_url: str  # a NATS server to use instead of the embedded one: NATS_URL
    database_url: str  # likewise: DATABASE_URL
    has_model: bool  # whether OPENAI_API_KEY or OPENAI_BASE_URL names a real model's server
    app_env: str  # APP_ENV
    pools: Mapping[str, int]  # how many of which process: COZY_POOLS, then --scale
    share_port: bool  # whether several gateways listen on `port` together, or all but the first on ports of their own
    procfile: Path


def read_settings(env: Mapping[str, str], scale: str = "", procfile: Path = PROJECT / "Procfile") -> LaunchSettings:
    """The settings, with an empty variable counting as one that is not set. Raises SettingError."""
    data_folder = Path(env.get("DATA_DIR") or PROJECT / ".data").expanduser().absolute()
    try:
        pools = {**parse_pools(env.get("COZY_POOLS", "")), **parse_pools(scale)}
    except ValueError as error:
        raise SettingError(f"COZY_POOLS or --scale: {error}") from None
    return LaunchSettings(
        port=_port(env.get("PORT") or str(DEFAULT_PORT)),
        data_folder=data_folder,
        nats_url=env.get("NATS_URL", ""),
        database_url=env.get("DATABASE_URL", ""),
        has_model=bool(env.get("OPENAI_API_KEY") or env.get("OPENAI_BASE_URL")),
        app_env=env.get("APP_ENV") or "development",
        pools=pools,
        share_port=pools.get(GATEWAY, 1) > 1
        and hasattr(socket, "SO_REUSEPORT")
        and env.get(REUSE_PORT, "").lower() != "false",
        procfile=procfile,
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise SettingError(f"PORT: expected a number from 1 to 65535, got {text!r}")
    return int(text)
