"""The command line of the load program, and the plan it means."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ops.load.plan import MOST_CONCURRENCY, MOST_REQUESTS, Plan, target


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed command line."""

    plan: Plan
    as_json: bool


def read_command(arguments: Sequence[str] | None, description: str | None) -> Command:
    """The command in `arguments` (None: the process's own). A wrong one is explained and exits with 2."""
    parser = _parser(description)
    given = parser.parse_args(arguments)
    try:
        return Command(plan=_plan(given), as_json=given.json)
    except ValueError as problem:
        parser.error(str(problem))


def _plan(given: argparse.Namespace) -> Plan:
    compare = None
    if given.compare is not None:
        compare = target(given.compare, given.compare_model or given.model, given.compare_key)
    return Plan(
        target=target(given.url, given.model, given.key, given.sessions),
        compare=compare,
        requests=given.requests,
        concurrency=given.concurrency,
        tokens=given.tokens,
        pace=given.pace,
        open_over=given.open_over,
        timeout=given.timeout,
        warmup=given.warmup,
        run_json=given.run_json,
    )


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ops.load.chat",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    many, crowd, seconds = _whole(1, MOST_REQUESTS), _whole(1, MOST_CONCURRENCY), _positive
    add("--url", required=True, help="the server to drive: http on loopback, with or without /v1")
    add("--key", help="its key, sent as a bearer token")
    add("--model", default="cozy/default", help="default: %(default)s")
    add("--requests", type=many, default=100, metavar="N", help="in all, for each server (%(default)s)")
    add("--concurrency", type=crowd, default=1, metavar="N", help="requests at once (%(default)s)")
    add("--open-over", type=seconds, metavar="SECONDS", help="open all evenly over this; no concurrency")
    add("--tokens", type=many, default=100, metavar="N", help="tokens a reply asked for (%(default)s)")
    add("--pace", type=seconds, metavar="TOK/S", help="tokens a second of each stream (default: no gap)")
    chats = parser.add_mutually_exclusive_group()
    chats.add_argument(
        "--sessions",
        action="store_true",
        help="each virtual user of --url chats in a session of its own, made before the clock starts",
    )
    chats.add_argument("--no-session", dest="sessions", action="store_false", help="no session (the default)")
    add("--timeout", type=seconds, default=120.0, metavar="SECONDS", help="per request (%(default)s)")
    add("--warmup", type=_whole(0, MOST_REQUESTS), default=0, metavar="N", help="requests before measuring")
    add("--compare", metavar="URL", help="a second server, driven in alternation")
    add("--compare-key", metavar="KEY", help="its key (default: none)")
    add("--compare-model", metavar="MODEL", help="its model (default: that of --model)")
    add("--run-json", type=Path, metavar="PATH", help="processes to watch: DATA_DIR/run.json")
    add("--json", action="store_true", help="print figures as one JSON object")
    return parser


def _whole(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {value}")
        return value

    return number


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value
