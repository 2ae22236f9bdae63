"""The figures as a compact table for people, or as one JSON object for programs."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ops.load.drive import Outcome
from ops.load.plan import Plan
from ops.load.processes import Processes
from ops.load.tally import Figures

MB = 1024

# What is set side by side: a label, the value, and how it is written.
ROWS: list[tuple[str, Callable[[Figures], float | None], str]] = [
    ("requests whole", lambda f: f.ok, "d"),
    ("requests failed", lambda f: f.failed, "d"),
    ("seconds", lambda f: f.seconds, ".2f"),
    ("requests/s", lambda f: f.requests_per_s, ".1f"),
    ("tokens", lambda f: f.tokens, "d"),
    ("tokens/s", lambda f: f.tokens_per_s, ".0f"),
    ("TTFT ms p50", lambda f: f.ttft_ms.p50, ".2f"),
    ("TTFT ms p95", lambda f: f.ttft_ms.p95, ".2f"),
    ("TTFT ms p99", lambda f: f.ttft_ms.p99, ".2f"),
    ("gap ms p50", lambda f: f.gap_ms.p50, ".2f"),
    ("gap ms p99", lambda f: f.gap_ms.p99, ".2f"),
    ("gap ms max", lambda f: f.gap_ms.max, ".2f"),
    ("content events", lambda f: f.content_events, "d"),
    ("open at most", lambda f: f.peak_open, "d"),
    ("MB received", lambda f: f.bytes_in / 1e6, ".2f"),
    ("load program CPU s", lambda f: f.own_cpu_s, ".2f"),
]
RATIOS = {"requests/s", "tokens/s", "TTFT ms p50", "TTFT ms p95", "TTFT ms p99", "gap ms p50", "gap ms p99"}


def as_table(plan: Plan, outcome: Outcome) -> str:
    """The whole report for people; ratios are --url over --compare."""
    return "\n".join(_lines(plan, outcome))


def as_json(plan: Plan, outcome: Outcome) -> str:
    """The whole report as JSON: `plan`, `target`, `compare`, `ratios`, `added_ttft_ms`, `processes`."""
    report: dict[str, Any] = {
        "plan": _plan(plan),
        **msgspec.to_builtins(outcome),
        "ratios": None,
        "added_ttft_ms": None,
    }
    if outcome.compare is not None:
        report["ratios"] = ratios(outcome.target, outcome.compare)
        report["added_ttft_ms"] = added_ttft(outcome.target, outcome.compare)
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode()


def ratios(target: Figures, compare: Figures) -> dict[str, float | None]:
    """Target over compare for every row where that makes sense; None where either side has nothing."""
    pairs = {label: (value(target), value(compare)) for label, value, _ in ROWS if label in RATIOS}
    return {label: a / b if a is not None and b else None for label, (a, b) in pairs.items()}


def added_ttft(target: Figures, compare: Figures) -> dict[str, float | None]:
    """What the target adds to the time to first token, percentile by percentile, in milliseconds."""
    a, b = target.ttft_ms, compare.ttft_ms
    pairs = {"p50": (a.p50, b.p50), "p95": (a.p95, b.p95), "p99": (a.p99, b.p99)}
    return {name: x - y if x is not None and y is not None else None for name, (x, y) in pairs.items()}


def _lines(plan: Plan, outcome: Outcome) -> Iterator[str]:
    yield _headline(plan)
    yield from _figures(outcome)
    for figures in (outcome.target, outcome.compare):
        if figures is not None:
            yield from _notes(figures)
    if outcome.processes is not None:
        yield ""
        yield from _process_lines(outcome.processes)


def _headline(plan: Plan) -> str:
    how = f"opened over {plan.open_over:g} s" if plan.open_over is not None else f"concurrency {plan.concurrency}"
    pace = "no gap" if plan.pace is None else f"{plan.pace:g} tokens/s"
    sessions = "sessions" if plan.target.sessions else "no sessions"
    return f"{plan.requests} requests, {how}, {plan.tokens} tokens, {pace}, {sessions}"


def _figures(outcome: Outcome) -> Iterator[str]:
    target, compare = outcome.target, outcome.compare
    if compare is None:
        yield f"{'':20}{target.model:>16}  {target.url}"
        for label, value, form in ROWS:
            yield f"{label:20}{_written(value(target), form):>16}"
        return
    quotients = ratios(target, compare)
    yield f"{'':20}{target.model:>16}{compare.model:>16}{'ratio':>10}  {target.url} : {compare.url}"
    for label, value, form in ROWS:
        ratio = _written(quotients[label], ".2f") if label in quotients else ""
        a, b = _written(value(target), form), _written(value(compare), form)
        yield f"{label:20}{a:>16}{b:>16}{ratio:>10}".rstrip()
    added = ", ".join(f"{name} {_written(ms, '.2f')}" for name, ms in added_ttft(target, compare).items())
    yield f"added TTFT ms: {added}"


def _notes(figures: Figures) -> Iterator[str]:
    if figures.counted_by != "usage":
        yield f"note: {figures.url} sent no usage with some replies: their content events stand for tokens"
    for kind, times in figures.errors.items():
        yield f"error: {figures.url} {times} x {kind}"


def _process_lines(processes: Processes) -> Iterator[str]:
    yield f"{'process':24}{'pid':>9}{'CPU s':>9}{'RSS MB before':>15}{'peak':>9}{'after':>9}"
    for one in processes.each:
        memory = (one.rss_before_kb, one.rss_peak_kb, one.rss_after_kb)
        before, peak, after = (f"{kb / MB:.1f}" for kb in memory)
        gone = "  not there throughout" if one.gone else ""
        yield f"{one.name:24}{one.pid:>9}{one.cpu_s:>9.2f}{before:>15}{peak:>9}{after:>9}{gone}"
    peak = f"{processes.ours_rss_peak_kb / MB:.1f}"
    yield f"{'all but the upstream':24}{'':9}{processes.ours_cpu_s:>9.2f}{'':15}{peak:>9}"
    yield f"tokens per CPU-second: {_written(processes.tokens_per_cpu_s, '.0f')}"
    yield f"gateway KB per open stream: {_written(processes.gateway_kb_per_stream, '.1f')}"


def _written(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _plan(plan: Plan) -> dict[str, Any]:
    names = ("requests", "concurrency", "tokens", "pace", "open_over", "timeout", "warmup")
    return {name: getattr(plan, name) for name in names} | {"sessions": plan.target.sessions}
