"""When a flood was fair to the other user, and when it was not."""

from __future__ import annotations

import argparse

import pytest

from ops.drills.fairness import Heard, kept, most_at_once

OPTIONS = argparse.Namespace(limit=2)


def chats(ttft: float, count: int = 40) -> list[Heard]:
    return [Heard(asked=i, first=i + ttft, ended=i + ttft + 0.5) for i in range(count)]


def test_replies_under_way_are_counted_from_their_first_word_to_their_end() -> None:
    assert most_at_once([Heard(0, 1, 2), Heard(0, 1.5, 3), Heard(0, 2.5, 4)]) == 2
    assert most_at_once([Heard(0, 1, 2), Heard(0, 2, 3)]) == 1


@pytest.mark.parametrize(("beside", "fair"), [(0.30, True), (0.329, True), (0.345, False)])
def test_the_other_user_s_wait_may_move_by_a_tenth_or_30_ms(beside: float, fair: bool) -> None:
    assert kept(OPTIONS, chats(0.30), chats(beside), chats(0.3)) is fair


def test_a_flood_that_is_not_answered_or_above_its_limit_is_a_broken_promise() -> None:
    assert not kept(OPTIONS, chats(0.3), chats(0.3), [*chats(0.3), Heard(0)])
    assert not kept(OPTIONS, chats(0.3), chats(0.3), [Heard(0, 1, 2)] * 3)
