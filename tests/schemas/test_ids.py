"""Ids: their form, their order, and that a derived one is always the same."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import MAX_MILLISECONDS, id_from, is_id, keyed_id, new_id, part_of

MOMENTS = st.integers(0, MAX_MILLISECONDS)
CHANCE = st.binary(min_size=10, max_size=10)
NAMES = st.lists(st.text(alphabet="abc", min_size=1) | st.integers(0, 99), max_size=3)


@given(MOMENTS, CHANCE)
def test_an_id_is_a_uuid_of_version_7_in_canonical_form(moment: int, chance: bytes) -> None:
    id = id_from(moment, chance)
    read = uuid.UUID(id)
    assert (str(read), read.version, read.variant) == (id, 7, uuid.RFC_4122)


@given(MOMENTS, CHANCE)
def test_an_id_holds_its_moment(moment: int, chance: bytes) -> None:
    assert uuid.UUID(id_from(moment, chance)).int >> 80 == moment


@given(MOMENTS, MOMENTS, CHANCE, CHANCE)
def test_ids_sort_by_their_moment(one: int, other: int, chance: bytes, more_chance: bytes) -> None:
    if one != other:
        assert (id_from(one, chance) < id_from(other, more_chance)) == (one < other)


def test_two_new_ids_differ() -> None:
    assert len({new_id() for _ in range(1000)}) == 1000


def test_a_new_id_is_one() -> None:
    assert is_id(new_id())


@given(MOMENTS, CHANCE, NAMES)
def test_a_part_has_one_id_and_sorts_beside_its_turn(moment: int, chance: bytes, names: list[object]) -> None:
    turn = id_from(moment, chance)
    part = part_of(turn, *names)
    assert part == part_of(turn, *names)
    assert (part[:13], uuid.UUID(part).version) == (turn[:13], 7)


def test_parts_of_other_names_and_turns_have_other_ids() -> None:
    one, other = new_id(), new_id()
    ids = [
        part_of(one, "reply", 0, 1),
        part_of(one, "reply", 1, 0),
        part_of(one, "call", 0, 1),
        part_of(other, "reply"),
    ]
    assert len(set(ids)) == 4


def test_the_id_of_a_part_never_changes() -> None:
    turn = "0190163d-8694-739b-aea5-966c26f8ad91"
    assert part_of(turn, "session") == "0190163d-8694-75ed-b9d9-3f06c6b2bd65"
    assert part_of(turn, "reply", 0, 0) == "0190163d-8694-71e1-ba3c-d40b3715a07a"


@given(st.text(), st.text())
def test_a_keyed_id_is_a_uuid_of_version_8_and_always_the_same(caller: str, key: str) -> None:
    id = keyed_id(caller, key)
    read = uuid.UUID(id)
    assert is_id(id)
    assert (read.version, read.variant) == (8, uuid.RFC_4122)
    assert keyed_id(caller, key) == id


def test_keyed_ids_of_other_callers_and_keys_differ() -> None:
    ann, ben = new_id(), new_id()
    assert len({keyed_id(ann, "1"), keyed_id(ben, "1"), keyed_id(ann, "2")}) == 3


def test_the_id_of_a_key_never_changes() -> None:
    assert keyed_id("0190163d-8694-739b-aea5-966c26f8ad91", "order-66") == "46b0bba1-02c3-8a5b-90dd-5fb01af43ea7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0190163D-8694-739B-AEA5-966C26F8AD91",
        "0190163d8694739baea5966c26f8ad91",
        "{0190163d-8694-739b-aea5-966c26f8ad9}",
        "0190163d-8694-739b-aea5-966c26f8ad9g",
        "0190163d-8694-739b-aea5-966c26f8ad91\n",
        "0190163d-8694-739b-aea5-966c26f8ad٣1",
    ],
)
def test_what_is_no_canonical_uuid_is_no_id(text: str) -> None:
    assert not is_id(text)


@given(st.text(max_size=40))
def test_asking_whether_a_text_is_an_id_never_fails(text: str) -> None:
    assert is_id(text) in (True, False)
