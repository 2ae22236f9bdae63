"""The memory of callers: how long an answer counts, who is served while nobody answers, and who no longer is."""

from __future__ import annotations

import asyncio

import pytest

from gateway import callers
from gateway.callers import Callers, hash_of, key_of
from schemas import codec
from schemas.faults import AuthExpired, AuthInvalid, AuthMissing, StorageUnavailable
from schemas.records import Caller, CallersRevoked

ANN, BEN = Caller(user_id="ann"), Caller(user_id="ben")


class Desk:
    """Answers for the records worker, and has a clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.people = {"a": ANN, "a2": ANN, "b": BEN}
        self.asked: list[str] = []
        self.away = False
        self.hears = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.callers = Callers(self.find, fresh=30, stale=300, clock=lambda: self.now)

    async def find(self, key_hash: str) -> Caller:
        self.asked.append(key_hash)
        self.hears.set()
        found, away = self.people.get(key_hash), self.away
        await self.open.wait()
        if away:
            raise StorageUnavailable
        if found is None:
            raise AuthInvalid
        return found

    async def later(self, seconds: float) -> None:
        """Time passes, and what goes on in the background comes to its end."""
        self.now += seconds
        await self.quiet()

    async def quiet(self) -> None:
        while self.callers._asking:
            await asyncio.wait(self.callers._asking.values())


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_known_caller_is_not_asked_for_again_while_the_answer_is_fresh(desk: Desk) -> None:
    assert await desk.callers.require("a") == ANN
    await desk.later(29)
    assert await desk.callers.require("a") == ANN
    assert desk.asked == ["a"]


async def test_an_answer_no_longer_fresh_is_renewed_behind_the_callers_back(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.now += 31
    desk.open.clear()
    assert await desk.callers.require("a") == ANN
    desk.open.set()
    await desk.later(29)
    await desk.callers.require("a")
    assert desk.asked == ["a", "a"]


async def test_an_old_answer_is_renewed_before_it_is_used(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.now += 61
    del desk.people["a"]
    with pytest.raises(AuthInvalid):
        await desk.callers.require("a")


async def test_a_known_caller_is_served_for_minutes_while_nobody_answers(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.away = True
    for _ in range(29):
        await desk.later(10)
        assert await desk.callers.require("a") == ANN
    await desk.later(10)
    with pytest.raises(StorageUnavailable):
        await desk.callers.require("a")


async def test_a_desk_that_hangs_delays_a_known_caller_for_less_than_half_a_second(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.now += 61
    desk.open.clear()
    async with asyncio.timeout(1.5):
        assert await desk.callers.require("a") == ANN
    desk.open.set()
    await desk.quiet()


async def test_a_desk_that_is_away_is_asked_once_a_second_for_a_known_caller(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.away = True
    desk.now += 61
    for _ in range(5):
        await desk.callers.require("a")
    assert desk.asked == ["a", "a"]
    await desk.later(1.1)
    await desk.callers.require("a")
    assert desk.asked == ["a", "a", "a"]


async def test_a_stranger_is_told_that_storage_is_away_not_that_the_key_is_wrong(desk: Desk) -> None:
    desk.away = True
    with pytest.raises(StorageUnavailable):
        await desk.callers.require("a")
    desk.away = False
    assert await desk.callers.require("a") == ANN


async def test_a_refusal_is_remembered_for_a_second(desk: Desk) -> None:
    for _ in range(3):
        with pytest.raises(AuthInvalid):
            await desk.callers.require("new")
    assert desk.asked == ["new"]
    desk.people["new"] = BEN
    await desk.later(1.1)
    assert await desk.callers.require("new") == BEN


async def test_all_who_wait_for_the_same_key_share_one_question(desk: Desk) -> None:
    desk.open.clear()
    waiting = [asyncio.create_task(desk.callers.require("a")) for _ in range(20)]
    await desk.hears.wait()
    desk.open.set()
    assert await asyncio.gather(*waiting) == [ANN] * 20
    assert desk.asked == ["a"]


async def test_one_who_leaves_does_not_end_the_question_of_the_others(desk: Desk) -> None:
    desk.open.clear()
    first, second = (asyncio.create_task(desk.callers.require("a")) for _ in range(2))
    await desk.hears.wait()
    first.cancel()
    desk.open.set()
    assert await second == ANN


async def test_a_revoked_key_is_forgotten_at_once_and_the_users_other_key_is_not(desk: Desk) -> None:
    await desk.callers.require("a")
    await desk.callers.require("a2")
    del desk.people["a"]
    desk.callers.hear_revoked("", codec.encode(CallersRevoked(key_hash="a")))
    with pytest.raises(AuthInvalid):
        await desk.callers.require("a")
    desk.away = True
    assert await desk.callers.require("a2") == ANN


async def test_all_keys_of_a_revoked_user_are_forgotten(desk: Desk) -> None:
    for key in ("a", "a2", "b"):
        await desk.callers.require(key)
    desk.callers.hear_revoked("", codec.encode(CallersRevoked(user_id="ann")))
    desk.away = True
    for key in ("a", "a2"):
        with pytest.raises(StorageUnavailable):
            await desk.callers.require(key)
    assert await desk.callers.require("b") == BEN


async def test_an_answer_given_before_a_revocation_is_not_remembered_after_it(desk: Desk) -> None:
    desk.open.clear()
    asking = asyncio.create_task(desk.callers.require("a"))
    await desk.hears.wait()
    del desk.people["a"]
    desk.callers.hear_revoked("", codec.encode(CallersRevoked(key_hash="a")))
    desk.open.set()
    await asking
    with pytest.raises(AuthInvalid):
        await desk.callers.require("a")


@pytest.mark.parametrize("how", ["reconnected", "unreadable"])
async def test_after_a_doubt_everyone_is_asked_for_first(desk: Desk, how: str) -> None:
    await desk.callers.require("a")
    await desk.callers.require("b")
    del desk.people["a"]
    if how == "reconnected":
        desk.callers.doubt()
    else:
        desk.callers.hear_revoked("", b"\xc1")
    with pytest.raises(AuthInvalid):
        await desk.callers.require("a")
    assert await desk.callers.require("b") == BEN
    await desk.later(29)
    await desk.callers.require("b")
    assert desk.asked == ["a", "b", "a", "b"]


async def test_doubt_does_not_lock_out_the_known_while_nobody_answers(desk: Desk) -> None:
    await desk.callers.require("a")
    desk.callers.doubt()
    desk.away = True
    assert await desk.callers.require("a") == ANN


async def test_an_expired_key_is_told_so(desk: Desk) -> None:
    async def expired(_: str) -> Caller:
        raise AuthExpired

    with pytest.raises(AuthExpired):
        await Callers(expired).require("a")


async def test_memory_is_bounded_and_strangers_push_nobody_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "REMEMBERED", 3)
    await desk.callers.require("a")
    for number in range(10):
        with pytest.raises(AuthInvalid):
            await desk.callers.require(f"guess {number}")
    await desk.callers.require("a")
    assert desk.asked.count("a") == 1
    for number in range(10):
        desk.people[f"user {number}"] = BEN
        await desk.callers.require(f"user {number}")
    assert len(desk.callers._known) == len(desk.callers._refused) == 3


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer sk-1")],
        [(b"authorization", b"bearer  sk-1 ")],
        [(b"x-api-key", b"sk-1")],
        [(b"api-key", b" sk-1")],
        [(b"x-api-key", b"sk-2"), (b"authorization", b"Bearer sk-1")],
    ],
)
def test_a_key_is_found_where_clients_put_it(headers: list[tuple[bytes, bytes]]) -> None:
    assert key_of(headers) == b"sk-1"


@pytest.mark.parametrize("headers", [[], [(b"authorization", b"Bearer ")], [(b"x-api-key", b" ")]])
def test_no_key_is_told_from_a_wrong_one(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(AuthMissing):
        key_of(headers)


@pytest.mark.parametrize("value", [b"Basic c2s6", b"sk-1", b"Bearer " + b"x" * 600])
def test_what_cannot_be_a_key_is_refused_unasked(value: bytes) -> None:
    with pytest.raises(AuthInvalid):
        key_of([(b"authorization", value)])


def test_a_hash_is_sha256_in_hex() -> None:
    assert hash_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
