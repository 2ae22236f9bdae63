"""A drill's one table: broken promises by kind, how long readers waited, and what was done to the system."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from ops.drills.audit import KINDS, Violation, World, interrupted, unknown_outcomes
from ops.drills.clients import Chat
from ops.drills.faults import Done
from ops.drills.watch import Span, in_the_light
from ops.load.samples import percentile

SHOWN = 8
"""Violations, and long silences, that are spelled out."""
MET = 6
"""Kinds of errors that are listed."""
EVENT = re.compile(r'^([a-z_]+).*?"event":"(\w+)".*$')
NEAR = 1.0
"""Seconds before a silence within which a fault may have caused it."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a drill found. Times in seconds.

    `silence`: the longest one of each stream that a fault met; `stall`: what is left of it without the times in which
    a stage had nobody who was ready, as while PostgreSQL recovers or all workers of a stage are starting.
    """

    chats: int
    broken: dict[str, int]
    refused: int
    interrupted: int
    unknown: int
    taken_over: int
    returns: int
    stopped: int
    cancelled: int
    met: dict[str, int]
    silence_p50: float
    silence_p99: float
    dark: float
    stall_p50: float
    stall_p99: float
    stall_max: float
    ttft_p50: float
    ttft_p99: float

    @property
    def kept(self) -> bool:
        """Whether no promise was broken."""
        return not any(self.broken.values())


def figures(
    world: World,
    violations: Sequence[Violation],
    faults: Sequence[Done] = (),
    began: float = 0,
    dark: Sequence[Span] = (),
) -> Figures:
    """The figures of a drill. `began`: the monotonic time that the fault log counts from."""
    counts = Counter(violation.kind for violation in violations)
    met = [chat for chat in world.chats if met_by(chat, faults, began)]
    silences = sorted(chat.silence for chat in met) or [0.0]
    stalls = sorted(in_the_light(chat.silence_at, chat.silence, dark) for chat in met) or [0.0]
    ttft = sorted(chat.first_at - chat.asked_at for chat in world.chats if chat.first_at) or [0.0]
    return Figures(
        chats=len(world.chats),
        broken={kind: counts[kind] for kind in KINDS},
        refused=sum(chat.state == "refused" or not chat.turn_id for chat in world.chats),
        interrupted=len(interrupted(world)),
        unknown=unknown_outcomes(world),
        taken_over=sum(turn.attempts > 1 for turn in world.evidence.turns),
        returns=sum(chat.returns for chat in world.chats),
        stopped=sum(chat.stopped for chat in world.chats),
        cancelled=sum(turn.state == "cancelled" for turn in world.evidence.turns),
        met=dict(Counter(error for chat in world.chats for error in chat.errors).most_common(MET)),
        silence_p50=percentile(silences, 50),
        silence_p99=percentile(silences, 99),
        dark=sum(until - since for since, until in dark),
        stall_p50=percentile(stalls, 50),
        stall_p99=percentile(stalls, 99),
        stall_max=stalls[-1],
        ttft_p50=percentile(ttft, 50),
        ttft_p99=percentile(ttft, 99),
    )


def met_by(chat: Chat, faults: Sequence[Done], began: float) -> bool:
    """Whether a fault happened while this chat's reply was being shown; with no faults at all, every chat counts."""
    if not chat.streamed or not chat.first_at:
        return False
    end = chat.ended_at or chat.first_at
    return not faults or any(chat.first_at <= began + fault.at <= end for fault in faults)


def table(title: str, found: Figures, faults: Mapping[str, int], stall_limit: float) -> str:
    """The figures for people."""
    struck = ", ".join(f"{count} x {kind}" for kind, count in sorted(faults.items())) or "none"
    rows = [
        ("chats", str(found.chats)),
        ("faults", struck),
        *((kind, str(count)) for kind, count in found.broken.items()),
        ("interrupted", str(found.interrupted)),
        ("refused", str(found.refused)),
        ("outcome unknown", f"{found.unknown} (unkeyed calls whose worker died: never repeated)"),
        ("taken over", str(found.taken_over)),
        ("clients came back", str(found.returns)),
        ("stopped", f"{found.stopped} by their clients; {found.cancelled} turns ended so, interrupted ones included"),
        ("clients met", ", ".join(f"{count} x {error}" for error, count in found.met.items()) or "no error"),
        ("silence s p50 / p99", f"{found.silence_p50:.2f} / {found.silence_p99:.2f}"),
        ("dark s", f"{found.dark:.2f} in which a stage had nobody who was ready"),
        ("stall s p50 / p99", f"{found.stall_p50:.2f} / {found.stall_p99:.2f} (max {found.stall_max:.2f})"),
        ("stall limit s", f"{stall_limit:g} at p99: {'kept' if found.stall_p99 <= stall_limit else 'EXCEEDED'}"),
        ("TTFT s p50 / p99", f"{found.ttft_p50:.2f} / {found.ttft_p99:.2f}"),
    ]
    return "\n".join([title, *(f"  {name:<20}{value}" for name, value in rows)])


def logged_errors(lines: Sequence[str]) -> str:
    """The lines that `Stack.errors` gives, counted by process and event: what the system itself thinks went wrong."""
    events = Counter(EVENT.sub(r"\1 \2", line) for line in lines)
    told = ", ".join(f"{count} x {event}" for event, count in events.most_common())
    return f"  {'errors logged':<20}{told or 'none'}"


def details(
    violations: Sequence[Violation],
    world: World,
    faults: Sequence[Done] = (),
    began: float = 0,
    dark: Sequence[Span] = (),
) -> list[str]:
    """The first violations and the longest stalls with the faults around them, one line each."""
    lines = [f"  {one.kind}: {one.what}" for one in violations[:SHOWN]]
    lines += [f"  interrupted: turn {turn.id} ({turn.fault})" for turn in interrupted(world)[:SHOWN]]
    stalls = [(in_the_light(chat.silence_at, chat.silence, dark), chat) for chat in world.chats if chat.streamed]
    for stall, chat in sorted(stalls, key=lambda each: -each[0])[:SHOWN]:
        at = chat.silence_at - began
        near = [f"{f.kind} {f.target} at {f.at:.1f}" for f in faults if at - NEAR <= f.at <= at + chat.silence]
        seconds = f"{stall:.2f} of {chat.silence:.2f} s from {at:.1f}"
        lines.append(f"  silent {seconds}: chat {chat.number} (turn {chat.turn_id}): {near}")
    return lines
