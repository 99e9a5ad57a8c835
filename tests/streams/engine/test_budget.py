"""The retry budget of a model, and the window that it and the breaker count in."""

import asyncio

from streams.engine.retries import RetryBudget
from streams.engine.window import SlidingCounts


def make_budget(share: float = 0.2, min_per_s: float = 1.0) -> RetryBudget:
    return RetryBudget(share, min_per_s, 10.0, asyncio.get_running_loop().time)


def taken(budget: RetryBudget, tries: int = 1000) -> int:
    return sum(budget.take() for _ in range(tries))


async def test_retries_are_at_most_a_share_of_the_calls_and_the_floor() -> None:
    budget = make_budget()
    for _ in range(500):
        budget.first_call()

    assert taken(budget) == 0.2 * 500 + 10


async def test_a_model_with_few_calls_can_still_retry() -> None:
    assert taken(make_budget()) == 10
    assert taken(make_budget(share=0, min_per_s=0)) == 1


async def test_what_was_spent_comes_back_with_time() -> None:
    budget = make_budget()
    taken(budget)
    await asyncio.sleep(9)

    assert taken(budget) == 0

    await asyncio.sleep(2)

    assert taken(budget) == 10


async def test_calls_earn_nothing_after_the_window() -> None:
    budget = make_budget()
    for _ in range(500):
        budget.first_call()
    await asyncio.sleep(11)

    assert taken(budget) == 10


async def test_the_window_needs_no_more_memory_at_a_high_rate() -> None:
    counts = SlidingCounts(10, asyncio.get_running_loop().time)
    for _ in range(5000):
        counts.add(first=1, second=2)
        await asyncio.sleep(0.01)

    first, second = counts.sums()

    assert 900 <= first <= 1100
    assert second == 2 * first
    assert len(counts._steps) <= 11
