"""Every event that was ever released still decodes to what it meant."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from schemas import codec
from schemas.context import ContextBundle
from schemas.replies import Frame
from schemas.turns import TurnArrival, TurnCompleted, TurnPrepared, TurnToolsCalled, Verdict
from tests.schemas.goldens import EXAMPLES, FOLDER

NAMES = sorted(path.stem for path in FOLDER.glob("*.hex"))
KEPT: set[type[msgspec.Struct]] = {*get_args(Frame), *get_args(TurnArrival), *get_args(Verdict)}
KEPT |= {TurnPrepared, TurnToolsCalled, TurnCompleted, ContextBundle}
"""What waits on the bus or at rest while one version of ours is replaced by the next."""


def golden(name: str) -> bytes:
    return bytes.fromhex((FOLDER / f"{name}.hex").read_text(encoding="ascii"))


@pytest.mark.parametrize("name", NAMES)
def test_a_released_event_still_decodes_to_what_it_meant(name: str) -> None:
    kind, example = EXAMPLES[name]
    assert codec.decoder(kind).decode(golden(name)) == example


def test_every_example_has_its_file() -> None:
    assert sorted(EXAMPLES) == NAMES


def test_every_kind_that_outlives_a_process_has_an_example() -> None:
    assert {type(example) for _, example in EXAMPLES.values()} == KEPT


@pytest.mark.parametrize("kind", sorted(KEPT, key=repr))
def test_the_examples_of_a_kind_set_every_field(kind: type[msgspec.Struct]) -> None:
    """A field left at its default would decode to it whatever it was renamed to."""
    examples = [example for _, example in EXAMPLES.values() if type(example) is kind]
    for field in msgspec.structs.fields(kind):
        assert any(getattr(example, field.name) != _default(field) for example in examples), field.name


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


def test_a_kind_is_told_from_the_others_by_its_bytes() -> None:
    frames = [name for name, (kind, _) in EXAMPLES.items() if kind is Frame]
    kinds = {name: type(codec.decoder(Frame).decode(golden(name))) for name in frames}
    assert kinds == {name: type(EXAMPLES[name][1]) for name in frames}
