"""`python -m ops.drills [name [options]]`: one drill, or all of them in turn with a summary."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping

NOT_RUN = 3
"""A drill's exit code where this machine does not allow it (no root, no network namespaces)."""
WRONG_NAME = BROKE_OFF = 2
INTERRUPTED = 130
WORDS = {0: "kept", NOT_RUN: "not run"}

DRILLS: Mapping[str, str] = {
    "chaos": "workers, NATS and PostgreSQL killed or frozen at random while people chat",
    "drain": "every process restarted, one after the other, under open streams",
    "outages": "PostgreSQL, NATS or the model server away, full, emptied or slow",
    "cluster": "the leader of a NATS cluster killed, and a worker right after",
    "partition": "stages and NATS parted by the network (root)",
    "powercut": "the disks as a power cut leaves them (root)",
    "fairness": "one user's flood beside another user's chat",
    "mutations": "each guarantee broken once: the drills must notice",
    "guarantees": "what the guarantees cost in tokens per CPU-second",
}
"""Every drill: a module of this folder with `main(argv) -> int`, 0 where the promise was kept."""


def main(argv: list[str]) -> int:
    """Run one drill with its options, or every drill as it comes; the exit code says whether the promise was kept."""
    if not argv:
        return all_of_them()
    name, *options = argv
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name not in DRILLS:
        print(f"python -m ops.drills: no drill {name!r}\n{usage()}", file=sys.stderr)
        return WRONG_NAME
    return run(name, options)


def usage() -> str:
    """Every drill with its line."""
    drills = [f"  {name:<12}{line}" for name, line in DRILLS.items()]
    return "\n".join(["usage: python -m ops.drills [name [options]]", "", *drills])


def run(name: str, options: list[str]) -> int:
    """The exit code of one drill."""
    code: int = importlib.import_module(f"ops.drills.{name}").main(options)
    return code


def all_of_them() -> int:
    """Run every drill with its defaults, then print how each went; 1 if any found a broken promise."""
    codes: dict[str, int] = {}
    for name in DRILLS:
        print(f"== {name}: {DRILLS[name]}", flush=True)
        codes[name] = _run_whatever_happens(name)
        if codes[name] == INTERRUPTED:
            return INTERRUPTED
    print("\n== all drills")
    for name, code in codes.items():
        print(f"  {name:<12}{WORDS.get(code, f'BROKEN ({code})')}")
    return 0 if WORDS.keys() >= set(codes.values()) else 1


def _run_whatever_happens(name: str) -> int:
    """A drill that breaks off has proven nothing, and keeps none of the others from being run."""
    try:
        return run(name, [])
    except Exception:
        traceback.print_exc()
        return BROKE_OFF


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
