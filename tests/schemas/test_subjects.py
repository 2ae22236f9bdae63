"""Subjects: their spelling, and that what is published is heard where it is listened for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import subjects
from schemas.ids import new_id
from schemas.streams import CONSUMERS, DEAD_LETTERS, REPLIES, STREAMS, TURNS

EVENTS = (
    subjects.TURN_REQUESTED,
    subjects.TURN_PREPARED,
    subjects.TURN_TOOLS_CALLED,
    subjects.TURN_COMPLETED,
)


def fits(subject: str, pattern: str) -> bool:
    """Whether NATS delivers the subject to the pattern."""
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and fits(".".join(tokens[: len(wanted) - 1]), ".".join(wanted[:-1]))
    return len(tokens) == len(wanted) and all(want in ("*", token) for token, want in zip(tokens, wanted, strict=True))


@given(st.text(), st.integers(1, 256))
def test_a_session_has_one_shard_and_it_exists(session_id: str, shards: int) -> None:
    assert subjects.shard_of(session_id, shards) in range(shards)
    assert subjects.shard_of(session_id, shards) == subjects.shard_of(session_id, shards)


def test_a_session_s_shard_never_changes() -> None:
    assert [subjects.shard_of("0190163d-8694-739b-aea5-966c26f8ad91", shards) for shards in (1, 4, 256)] == [0, 1, 185]


def test_sessions_are_spread_over_the_shards() -> None:
    counts = [0] * 4
    for _ in range(4000):
        counts[subjects.shard_of(new_id(), 4)] += 1
    assert min(counts) > 800


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_of_any_shard_reaches_exactly_one_consumer_and_the_stream(event: str) -> None:
    subject = subjects.turn_event(event, 17)
    assert sum(fits(subject, consumer.filter_subject) for consumer in CONSUMERS) == 1
    assert [stream.name for stream in STREAMS if any(fits(subject, each) for each in stream.subjects)] == [TURNS.name]


def test_every_consumer_hears_an_event_of_the_stream() -> None:
    assert {consumer.filter_subject for consumer in CONSUMERS} == {subjects.every_shard(event) for event in EVENTS}


def test_a_reply_is_captured_and_republished_to_where_readers_listen() -> None:
    subject = subjects.reply(3, "t")
    assert [stream.name for stream in STREAMS if any(fits(subject, each) for each in stream.subjects)] == [REPLIES.name]
    tokens = subject.split(".")
    assert REPLIES.republish_to is not None
    republished = REPLIES.republish_to.replace("{{wildcard(1)}}", tokens[1]).replace("{{wildcard(2)}}", tokens[2])
    assert republished == subjects.live(3, "t")


def test_what_readers_hear_is_not_captured_again() -> None:
    assert not any(fits(subjects.live(0, "t"), each) for stream in STREAMS for each in stream.subjects)


def test_dead_letters_are_kept() -> None:
    assert any(fits(subjects.dead("generation"), each) for each in DEAD_LETTERS.subjects)


def test_what_is_private_or_broadcast_is_not_kept() -> None:
    passing = [
        subjects.verdict("g", "t"),
        subjects.stored("g", "t"),
        subjects.cancel("t"),
        subjects.listeners("t"),
        subjects.record_query("Ping"),
        subjects.CALLERS_REVOKED,
    ]
    assert not [s for s in passing for stream in STREAMS for each in stream.subjects if fits(s, each)]


def test_a_stop_is_heard_by_whoever_listens_for_all() -> None:
    assert fits(subjects.cancel("t"), subjects.EVERY_CANCEL)


def test_nothing_stays_on_the_bus_for_ever() -> None:
    assert all(stream.max_age > 0 and stream.max_bytes > 0 for stream in STREAMS)


def test_a_stage_s_stream_refuses_when_full_instead_of_forgetting() -> None:
    assert (TURNS.work_queue, TURNS.refuse_when_full, TURNS.synced_lazily) == (True, True, False)
