"""Values made for schemas are valid under them."""

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from ops.local.scripted.schema_instance import instance_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Leaf(BaseModel):
    kind: Literal["leaf"]
    area: Annotated[float, Field(gt=0, lt=0.5)]


class Tree(BaseModel):
    name: Annotated[str, Field(min_length=30, max_length=40)]
    colour: Colour
    rings: Annotated[int, Field(ge=3, le=9, multiple_of=4)]
    leaves: Annotated[list[Leaf], Field(min_length=2)]
    parent: "Tree | None"
    twin: Leaf | int
    tags: dict[str, str]
    pair: tuple[int, str]
    alive: bool


def test_a_rich_and_recursive_model_accepts_its_value() -> None:
    tree = Tree.model_validate(instance_of(Tree.model_json_schema()))
    assert tree.rings == 4
    assert tree.parent is not None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "integer", "exclusiveMinimum": 1}, 2),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.75),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"type": "string", "maxLength": 3}, "scr"),
        ({"type": "string", "format": "date"}, "2026-01-02"),
        ({"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, {"a": 1}),
        ({"$ref": "#/$defs/x~1y", "$defs": {"x/y": {"type": "boolean"}}}, True),
        ({"oneOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"properties": {"a": {"default": "d"}}}, {"a": "d"}),
        ({"$ref": "#"}, "scripted value"),
    ],
)
def test_each_part_of_a_schema_is_understood(schema: dict[str, Any], value: Any) -> None:
    assert instance_of(schema) == value


def test_a_sparse_value_has_only_what_is_required() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}
    assert instance_of(schema, sparse=True) == {"b": "scripted b"}
