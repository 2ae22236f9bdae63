"""What a run is to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.plan import Plan, blocks, target


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.9.9.9:8000/v1/", "http://127.9.9.9:8000"),
        ("http://localhost", "http://localhost:80"),
        ("http://[::1]:8000/house/v1", "http://[::1]:8000/house"),
    ],
)
def test_loopback_urls_are_driven_with_and_without_v1(url: str, base: str) -> None:
    assert target(url, "m").base == base


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://10.0.0.1:8000",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.example.com",
        "http://127.0.0.1@example.com",
        "http://[::2]:8000",
        "https://127.0.0.1:8000",
        "127.0.0.1:8000",
        "http://127.0.0.1:99999",
        "http://127.0.0.1/\u00e4",
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - some of the words are the standard library's
        target(url, "m")


def test_a_key_that_would_break_the_header_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="plain ASCII") as problem:
        target("http://127.0.0.1", "m", key="sk-secret\r\nx: y")
    assert "secret" not in str(problem.value)


@given(st.integers(1, 100_000), st.integers(1, 5_000))
def test_blocks_add_up_are_at_most_ten_and_none_is_short(requests: int, concurrency: int) -> None:
    shares = blocks(requests, concurrency)
    assert sum(shares) == requests
    assert len(shares) <= 10
    assert len(shares) == 1 or min(shares) >= 4 * concurrency


def test_each_stream_of_an_open_run_has_a_user_of_its_own() -> None:
    there = target("http://127.0.0.1", "m")
    assert Plan(target=there, requests=50, concurrency=2, open_over=1).users == 50
    assert Plan(target=there, requests=50, concurrency=2).users == 2
    assert Plan(target=there, requests=1, concurrency=2).users == 1
