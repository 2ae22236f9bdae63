"""The app as a whole: nothing of the API is open by accident, and what is closed is not there."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from gateway import app
from gateway.guards import known_caller
from gateway.services import Services
from ops.runtime import config

PUBLIC = {"/livez", "/readyz", "/health", "/docs", "/docs/openapi.json", "/"}


def routes(folder: Path, **environ: str) -> list[HTTPRoute]:
    settings = config.load({"APP_ENV": "development", **environ}, folder)
    made = cast(Litestar, app.create(Services(settings)).app)
    return [route for route in made.routes if isinstance(route, HTTPRoute)]


def test_every_route_is_public_by_name_or_behind_the_guard(settings_folder: Path) -> None:
    found = routes(settings_folder)
    assert {route.path for route in found} > PUBLIC
    for route in found:
        for handler in route.route_handlers:
            guards = handler.resolve_guards()
            assert (known_caller in guards) == (route.path not in PUBLIC), route.path


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ("DOCS_ENABLED", "/docs"),
        ("DOCS_ENABLED", "/docs/openapi.json"),
        ("HEALTH_ENABLED", "/health"),
        ("PAGE_ENABLED", "/"),
    ],
)
def test_what_the_settings_close_is_not_there(settings_folder: Path, setting: str, path: str) -> None:
    found = routes(settings_folder, **{f"COZY_API__{setting}": "false"})
    assert path not in {route.path for route in found}
    assert path in {route.path for route in routes(settings_folder)}
