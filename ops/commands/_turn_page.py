"""Pure: a turn's life as one screen of text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from ops.commands._tables import span, stamp, table
from schemas.turns import ENDS, TurnState
from workers.storage.operation import CallLife, MessageCount, TurnLife

MOST_MOMENTS = 40
"""Lines of the timeline; of a longer one the middle is left out."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the turn that waits for a stage or is in its hands."""

    stage: str
    at: datetime
    sequence: int
    round: int | None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the turn."""

    at: datetime
    what: str


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """What the stream still has of the reply: how many frames of each kind, and those that mean more than words."""

    kinds: dict[str, int]
    last_index: int
    moments: list[Moment]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a turn's life."""

    life: TurnLife
    calls: list[CallLife]
    messages: list[MessageCount]
    frames: Frames
    events: list[Event]
    all_events: bool
    """Whether every waiting event was looked at; with a long backlog only the oldest are."""
    dead_letters: list[int]


def shown(page: Page) -> str:
    """The screen."""
    parts = [head(page), timeline(page)]
    if page.calls:
        rows = [(call.round, call.name, call.status, span(_took(call))) for call in page.calls]
        parts.append(table(("ROUND", "TOOL", "STATUS", "TOOK"), rows))
    if page.events:
        rows_ = [(event.stage, _or_dash(event.round), stamp(event.at), event.sequence) for event in page.events]
        parts.append(table(("EVENT WAITS FOR", "ROUND", "STORED", "SEQUENCE"), rows_))
    return "\n\n".join(parts)


def head(page: Page) -> str:
    """Who and where it is, line by line."""
    life = page.life
    ended = life.state in ENDS
    lines = [
        ("turn", f"{life.id}  {life.state}{'' if ended else f' for {span(_since(life, life.touched_at))}'}"),
        ("session", f"{life.session_id}  shard {life.shard}"),
        ("model", f"{life.model}  personality {life.personality_id or '-'}"),
        ("attempts", f"{life.attempts}  epoch {life.epoch}  round {life.round}  failures {life.failures}  "
                     f"driven again {life.sweeps}"),
        ("hands", hands(page)),
        ("reply", f"{life.shown_index} events, {life.shown_length} characters stored; "
                  f"finish {', '.join(life.finish_reasons or ()) or '-'}; usage {_usage(life)}"),
        ("frames", f"last event {page.frames.last_index}: {_counts(page.frames.kinds)}"),
        ("messages", _counts({each.role: each.messages for each in page.messages})
                     + (", a part so far" if any(each.partial for each in page.messages) else "")),
        ("memory", life.memory or "not told"),
        ("dead letters", ", ".join(map(str, page.dead_letters)) or "none"),
    ]  # fmt: skip
    if life.fault:
        lines.append(("fault", f"{life.fault['code']}: {life.fault['message']}"))
    return "\n".join(f"{name:<13}{text}" for name, text in lines)


def hands(page: Page) -> str:
    """In whose hands the turn is, or what it waits for."""
    life = page.life
    if life.state in ENDS:
        return "ended"
    if life.owner is not None:
        if life.lease_left is None:
            return f"worker {life.owner}, which is gone: free for another"
        if life.lease_left < 0:
            return f"{life.owner_stage} {life.owner}, silent for {span(-life.lease_left)}: free for another"
        return f"{life.owner_stage} {life.owner}, its lease lives for {span(life.lease_left)}"
    if life.state == TurnState.QUEUED:
        running = f", behind turn {life.running_ahead}, which runs" if life.running_ahead else ""
        return f"it waits: {life.queued_ahead} of its session before it{running}"
    if page.events:
        return "nobody's: its event is stored and waits for a worker"
    return "nobody's, and no event of it is stored: the sweeper drives it again" if page.all_events else "nobody's"


def timeline(page: Page) -> str:
    """What happened when: since the turn was accepted, and since what came before."""
    begin = page.life.created_at
    before = begin
    rows = []
    for moment in sorted(_moments(page), key=lambda moment: moment.at):
        at, since = (moment.at - begin).total_seconds(), (moment.at - before).total_seconds()
        rows.append((f"{at:+.3f} s", span(max(0.0, since)), moment.what))
        before = moment.at
    if len(rows) > MOST_MOMENTS:
        half = MOST_MOMENTS // 2
        rows[half:-half] = [("...", "", f"{len(rows) - 2 * half} more, see --json")]
    return table(("AT", "AFTER", f"WHAT HAPPENED SINCE {stamp(begin)}"), rows)


def _moments(page: Page) -> Iterable[Moment]:
    life = page.life
    yield Moment(at=life.created_at, what="accepted")
    yield from page.frames.moments
    for call in page.calls:
        yield Moment(at=call.created_at, what=f"round {call.round} asks for tool {call.name}")
        if call.started_at:
            yield Moment(at=call.started_at, what=f"tool {call.name} starts")
        if call.finished_at:
            yield Moment(at=call.finished_at, what=f"tool {call.name} is {call.status}")
    if life.stopped_at:
        yield Moment(at=life.stopped_at, what="its user says stop")
    if life.finished_at:
        yield Moment(at=life.finished_at, what=f"{life.state}: stored")
    else:
        yield Moment(at=life.touched_at, what=f"moved last, to {life.state}")
        yield Moment(at=life.now, what="now")


def _since(life: TurnLife, moment: datetime) -> float:
    return (life.now - moment).total_seconds()


def _took(call: CallLife) -> float | None:
    if call.started_at is None or call.finished_at is None:
        return None
    return (call.finished_at - call.started_at).total_seconds()


def _usage(life: TurnLife) -> str:
    usage = life.usage or {}
    return f"{usage.get('prompt_tokens', 0)} + {usage.get('completion_tokens', 0)} tokens" if usage else "-"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _or_dash(value: object) -> object:
    return "-" if value is None else value
