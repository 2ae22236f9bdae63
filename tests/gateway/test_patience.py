"""How long a reader waits: for what is missing, for the owner it asked, and in a silence."""

from __future__ import annotations

import pytest

from gateway import patience
from gateway.patience import GAP_PATIENCE, GAP_WAIT, GAP_WAIT_LONG, OWNER_PATIENCE, SILENCE, Patience

NOW = 1000.0


@pytest.fixture
def waiting() -> Patience:
    waiting = Patience()
    waiting.mind_gap(NOW)
    return waiting


def test_what_is_missing_is_looked_for_at_once(waiting: Patience) -> None:
    assert waiting.is_time(NOW)


def test_it_is_looked_for_again_later_and_in_the_end_seldom(waiting: Patience) -> None:
    assert waiting.tried(NOW + 0.5) == 0.5
    assert waiting.next_try == NOW + 0.5 + GAP_WAIT
    assert waiting.tried(NOW + GAP_PATIENCE) == GAP_PATIENCE
    assert waiting.next_try == NOW + GAP_PATIENCE + GAP_WAIT_LONG


def test_who_looks_for_it_does_not_look_again_at_once(waiting: Patience) -> None:
    assert waiting.is_time(NOW)
    assert not waiting.is_time(NOW)
    assert waiting.is_time(NOW + GAP_WAIT)


def test_a_gap_is_as_old_as_its_first_moment(waiting: Patience) -> None:
    waiting.mind_gap(NOW + 2)
    assert waiting.tried(NOW + 2) == 2


def test_a_gap_that_was_closed_is_forgotten(waiting: Patience) -> None:
    waiting.no_gap()
    waiting.mind_gap(NOW + 5)
    assert waiting.tried(NOW + 5) == 0


def test_an_owner_that_was_asked_has_the_time_to_answer(waiting: Patience) -> None:
    waiting.wait_for_owner(NOW)
    assert not waiting.is_time(NOW + OWNER_PATIENCE - 0.01)
    assert waiting.is_time(NOW + OWNER_PATIENCE)


def test_an_owner_is_not_asked_twice_in_a_row(waiting: Patience) -> None:
    assert waiting.may_want(NOW)
    assert not waiting.may_want(NOW + GAP_WAIT - 0.01)
    assert waiting.may_want(NOW + GAP_WAIT)


def test_a_silence_is_counted_over_waits_that_are_shorter() -> None:
    waiting = Patience()
    assert [waiting.silent(NOW), waiting.silent(NOW + 5)] == [NOW + SILENCE[0]] * 2


def test_silences_in_a_row_may_last_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SILENCE", (1.0, 2.0))
    waiting, lasted = Patience(), []
    for _ in range(3):
        lasted.append(waiting.silent(NOW) - NOW)
        waiting.looked()
    waiting.something_new()
    assert [*lasted, waiting.silent(NOW) - NOW] == [1, 2, 2, 1]
