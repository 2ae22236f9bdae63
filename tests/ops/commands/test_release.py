"""`python -m ops release`: the database and NATS made to match, or one line that says what is in the way."""

from __future__ import annotations

import pytest

from ops.runtime.bus import Bus
from tests.ops.commands.conftest import Ops


async def test_where_all_is_there_nothing_is_made(ops: Ops, bus: Bus) -> None:
    said = await ops("release")
    assert (said.status, said.err) == (0, "")
    assert said.out == "database: at the newest revision; streams made: none, all were there\n"


async def test_what_nats_does_not_take_is_named_in_one_line(
    ops: Ops, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COZY_STORAGE__NATS_REPLICAS", "3")
    said = await ops("release")
    assert said.status == 1
    assert said.err == (
        "release: NATS did not take TURNS_v1: replicas > 1 not supported in non-clustered mode (10074); "
        "see ops/runbooks/nats.md\n"
    )
