"""Percentiles and the bag they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.load.samples import Samples, Spread, percentile

some_floats = st.lists(st.floats(0, 1e6), min_size=1)


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (7, 7), (50, 50), (95, 95), (99, 99), (100, 100)])
def test_of_the_numbers_one_to_a_hundred_each_percentile_is_its_own_number(percent: int, expected: int) -> None:
    assert percentile(range(1, 101), percent) == expected


@pytest.mark.parametrize(("percent", "expected"), [(50, 20), (51, 30), (95, 40), (99, 40)])
def test_a_rank_between_two_values_is_the_upper_one(percent: int, expected: int) -> None:
    assert percentile([10, 20, 30, 40], percent) == expected


@given(some_floats, st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[float], percent: int) -> None:
    answer = percentile(sorted(values), percent)
    assert 100 * sum(value <= answer for value in values) >= percent * len(values)
    assert 100 * sum(value < answer for value in values) < percent * len(values)


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        percentile([], 50)


def test_a_spread_is_in_milliseconds_and_needs_no_order() -> None:
    samples = Samples()
    for seconds in (0.004, 0.001, 0.003, 0.002):
        samples.add(seconds)
    assert samples.spread() == Spread(count=4, p50=2, p95=4, p99=4, max=4)


def test_the_spread_of_nothing_has_no_values() -> None:
    assert Samples().spread() == Spread(count=0)


def test_beyond_the_bound_count_and_maximum_stay_exact_and_percentiles_stay_close() -> None:
    samples = Samples(kept=1_000)
    for number in range(50_000):
        samples.add(number / 1000)
    spread = samples.spread()
    assert (spread.count, spread.max) == (50_000, 49_999)
    # 25,000 expected; 1,000 of 50,000 chosen at chance miss it by more than 4,000 once in 10^6 runs or less.
    assert spread.p50 == pytest.approx(25_000, abs=4_000)
