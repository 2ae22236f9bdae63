"""A folder of configuration to write mistakes into."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ops.runtime import config
from ops.runtime.config import Config, ConfigError

SCRIPTED = {"SCRIPTED_URL": "http://127.0.0.1:9"}


class ConfigFolder:
    """A folder with one personality, and an environment with a model server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ: dict[str, str] = dict(SCRIPTED)
        (path / "personalities").mkdir()
        self.write("personalities/default.yaml", "id: default\nname: Cozy\nprompt: Be kind.\n")

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def load(self, environ: Mapping[str, str] | None = None) -> Config:
        """What a process of this folder starts with; `environ` adds to the environment."""
        return config.load({**self.environ, **(environ or {})}, self.path)

    def problems(self, environ: Mapping[str, str] | None = None) -> list[str]:
        """The lines that stop the start."""
        with pytest.raises(ConfigError) as raised:
            self.load(environ)
        return str(raised.value).splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> ConfigFolder:
    return ConfigFolder(tmp_path)
