"""Waits between attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.retries import backoff_s


def longest(_low: float, high: float) -> float:
    return high


def shortest(low: float, _high: float) -> float:
    return low


def test_the_upper_bounds_are_those_of_the_documented_table() -> None:
    bounds = [backoff_s(attempt, 0.5, 30, uniform=longest) for attempt in range(1, 9)]

    assert bounds == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_jitter_reaches_down_to_zero() -> None:
    assert backoff_s(5, 0.5, 30, uniform=shortest) == 0


def test_a_wait_the_provider_asks_for_is_a_lower_bound() -> None:
    assert backoff_s(1, 0.5, 30, retry_after_s=7, uniform=shortest) == 7


def test_a_wait_the_provider_asks_for_is_honoured_beyond_the_limit_and_spread() -> None:
    assert backoff_s(1, 0.5, 30, retry_after_s=120, uniform=longest) == 120.5


def test_a_wait_the_provider_asks_for_does_not_shorten_the_waits() -> None:
    bounds = [backoff_s(attempt, 0.5, 30, retry_after_s=0, uniform=longest) for attempt in range(1, 9)]

    assert bounds == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(
    attempt=st.integers(1, 10_000),
    base_s=st.floats(0.001, 100),
    max_s=st.floats(0.001, 3600),
    retry_after_s=st.none() | st.floats(0, 3600),
)
def test_any_wait_is_finite_and_inside_its_bounds(
    attempt: int, base_s: float, max_s: float, retry_after_s: float | None
) -> None:
    wait_s = backoff_s(attempt, base_s, max_s, retry_after_s)

    assert (retry_after_s or 0) <= wait_s <= max(max_s, (retry_after_s or 0) + base_s) + 1e-9


@pytest.mark.parametrize("attempt", [100, 10_000])
def test_a_large_attempt_number_does_not_overflow(attempt: int) -> None:
    assert backoff_s(attempt, 0.5, 30, uniform=longest) == 30
