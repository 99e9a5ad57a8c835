"""Deadlines that share a timer."""

import asyncio

import pytest

from gateways.ingress import deadlines
from gateways.ingress.deadlines import Deadline

SHORT_S, LONG_S = 0.01, 30.0


async def test_a_wait_that_is_too_long_ends_as_a_timeout() -> None:
    with pytest.raises(TimeoutError), Deadline(SHORT_S):
        await asyncio.get_running_loop().create_future()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_wait_in_time_is_left_alone() -> None:
    with Deadline(LONG_S):
        await asyncio.sleep(0)


async def test_every_wait_of_one_length_ends_at_its_own_time() -> None:
    loop = asyncio.get_running_loop()
    ended_s: dict[int, float] = {}

    async def wait(number: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        began_s = loop.time()
        with pytest.raises(TimeoutError), Deadline(0.05):
            await loop.create_future()
        ended_s[number] = loop.time() - began_s

    # All of them begin before the first ends, so nobody but the shared timer can wake the later ones.
    async with asyncio.timeout(5):
        await asyncio.gather(*(wait(number, number * 0.01) for number in range(4)))

    assert len(ended_s) == 4
    assert all(took_s >= 0.05 for took_s in ended_s.values())


async def test_a_deadline_behind_one_that_was_kept_still_comes() -> None:
    with Deadline(0.03):
        await asyncio.sleep(0)

    with pytest.raises(TimeoutError), Deadline(0.03):
        await asyncio.get_running_loop().create_future()


async def test_the_shorter_of_two_nested_deadlines_ends_the_wait() -> None:
    with Deadline(LONG_S), pytest.raises(TimeoutError), Deadline(SHORT_S):
        await asyncio.get_running_loop().create_future()


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def wait() -> None:
        with Deadline(LONG_S):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_inside_stays_what_it_is() -> None:
    with pytest.raises(KeyError), Deadline(LONG_S):
        raise KeyError


async def test_what_has_ended_is_not_kept() -> None:
    deadline = Deadline(LONG_S)
    with deadline:
        assert deadline in deadline._queue.waits

    assert not deadline._queue.waits


async def test_lengths_without_waits_are_forgotten() -> None:
    lengths = [SHORT_S + number / 1_000_000 for number in range(1, 9)]
    for length_s in lengths:
        with pytest.raises(TimeoutError), Deadline(length_s):
            await asyncio.get_running_loop().create_future()

    assert not deadlines._queues.keys() & set(lengths)
