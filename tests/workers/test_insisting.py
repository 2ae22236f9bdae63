"""A commit is repeated while the database is away, and only then."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from workers import insisting
from workers.insisting import insist
from workers.storage.database import AWAY


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insisting, "PAUSE_MAX", 0.01)
    monkeypatch.setattr(insisting, "AT_MOST", 0.5)


class Commit:
    """Fails as it is told, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.left = list(errors)
        self.tries = 0

    async def __call__(self) -> str:
        self.tries += 1
        if self.left:
            raise self.left.pop(0)
        return "committed"


@pytest.mark.parametrize("kind", AWAY)
async def test_a_database_that_comes_back_gets_the_commit(kind: Callable[[], Exception]) -> None:
    commit = Commit(kind(), kind())
    assert (await insist(lambda: commit()), commit.tries) == ("committed", 3)


async def test_a_statement_that_is_wrong_is_not_repeated() -> None:
    commit = Commit(psycopg.errors.UniqueViolation())
    with pytest.raises(psycopg.errors.UniqueViolation):
        await insist(commit)
    assert commit.tries == 1


async def test_a_database_that_stays_away_is_given_up_on() -> None:
    commit = Commit(*(psycopg.OperationalError() for _ in range(10_000)))
    with pytest.raises(psycopg.OperationalError):
        await insist(commit)
    assert commit.tries > 1


async def test_a_success_whose_answer_was_lost_is_asked_after() -> None:
    tries: list[str] = []

    async def commit() -> str | None:
        tries.append("commit")
        if len(tries) == 1:
            raise psycopg.OperationalError
        return None  # the first try did it

    async def landed() -> str | None:
        tries.append("look")
        if len(tries) == 3:
            raise psycopg.OperationalError
        return "committed"

    assert await insist(commit, landed) == "committed"
    assert tries == ["commit", "commit", "look", "look"]


async def test_who_finds_nothing_at_the_first_try_is_no_owner() -> None:
    async def commit() -> str | None:
        return None

    async def landed() -> str | None:
        raise AssertionError

    assert await insist(commit, landed) is None
