"""Embeddings: alike for texts that are alike, and always of length 1."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.local.scripted.embeddings import embed, embeddings_request, texts_of
from ops.local.scripted.problems import Problem


def likeness(one: str, other: str) -> float:
    return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))


@given(st.text(min_size=1), st.integers(1, 300))
def test_every_vector_has_the_length_one_and_the_wanted_dimensions(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("The cat sleeps on the red sofa", "a cat sleeping on a sofa", "Stock markets fell sharply"),
        ("我喜欢喝绿茶", "他也喜欢绿茶", "明日大雨将至"),
    ],
)
def test_texts_with_the_same_words_are_nearer(text: str, near: str, far: str) -> None:
    assert likeness(text, near) > likeness(text, far) + 0.2


def test_token_ids_are_taken_as_words() -> None:
    assert texts_of(embeddings_request(b'{"input": [1, 2]}')) == ["1 2"]
    assert texts_of(embeddings_request(b'{"input": [[1, 2], [3]]}')) == ["1 2", "3"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({}, "input"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, object], param: str) -> None:
    with pytest.raises(Problem) as problem:
        embeddings_request(msgspec.json.encode(body))
    assert problem.value.param == param
