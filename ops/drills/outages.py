"""Outages: PostgreSQL, NATS, the model server or a client away, full, emptied, slow or out of time.

    python -m ops.drills outages [--only NAME] [--chats N] [--seed S]

Each outage has a system of its own and prints a table; exit code 0 only if every promise was kept in each.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping

from ops.drills import outages_clocks, outages_servers, outages_slow
from ops.drills.machine import NotAllowed
from ops.drills.stack import run

Outage = Callable[[int, int], Awaitable[bool]]
OUTAGES: Mapping[str, Outage] = {
    "postgres": outages_servers.postgres,
    "nats-kill": outages_servers.nats_kill,
    "store-deleted": outages_servers.store_deleted,
    "full": outages_servers.full,
    "stalled": outages_slow.stalled,
    "upstream-hang": outages_slow.upstream_hang,
    "clock": outages_clocks.clock,
}


def main(argv: list[str]) -> int:
    """Run one outage, or each in turn."""
    parser = argparse.ArgumentParser(prog="python -m ops.drills outages", description=__doc__)
    parser.add_argument("--only", choices=OUTAGES, help="one outage alone")
    parser.add_argument("--chats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    names = [options.only] if options.only else list(OUTAGES)
    return run(_outages(names, options.chats, options.seed))


async def _outages(names: list[str], chats: int, seed: int) -> int:
    verdicts = {}
    for name in names:
        try:
            verdicts[name] = "kept" if await OUTAGES[name](chats, seed) else "BROKEN"
        except NotAllowed as error:
            verdicts[name] = f"not run: {error}"
    print("\n".join(["outages", *(f"  {name:<16}{verdict}" for name, verdict in verdicts.items())]))
    return 1 if "BROKEN" in verdicts.values() else 0
