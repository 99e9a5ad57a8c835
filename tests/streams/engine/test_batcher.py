"""Items are gathered within bounds, answered each on its own, and a bad one fails alone; on a virtual clock."""

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import InvalidRequest, Throttled
from streams.engine.batcher import Batcher, Limits, Unmatched, is_echo
from streams.engine.calls import let_go_of_cancelled
from tests.streams.virtual_clock import VirtualClockLoop, elapsed_s, settled


class Calls:
    """Answers every item with its square, and keeps what it was called with."""

    def __init__(self, latency_s: float = 1.0, poison: frozenset[int] = frozenset()) -> None:
        self.latency_s = latency_s
        self.poison = poison
        self.unmatched: set[int] = set()
        self.error: Exception | None = None
        self.batches: list[list[int]] = []
        self.began_at: list[float] = []
        self.in_flight = self.peak = self.cancelled = 0

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.began_at.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        if self.error is not None:
            raise self.error
        if self.poison & set(items):
            message = f"bad item among {list(items)}"
            raise InvalidRequest(message)
        if len(items) == 1:
            return [items[0] ** 2]
        return [Unmatched() if item in self.unmatched else item**2 for item in items]


def make(
    calls: Calls, *, items: int = 8, size_bytes: int = 1000, wait_s: float = 0.1, at_a_time: int = 4
) -> Batcher[int, int]:
    return Batcher(calls, Limits(items, size_bytes, wait_s, at_a_time), lambda error: isinstance(error, InvalidRequest))


async def submit_all(batcher: Batcher[int, int], items: Sequence[int], size_bytes: int = 1) -> list[object]:
    return await asyncio.gather(*(batcher.submit(item, size_bytes) for item in items), return_exceptions=True)


def test_on_uvloop_a_wait_may_be_over_as_soon_as_it_begins() -> None:
    """Its timers for a time that has passed, which a loaded machine makes, do not know when they are due."""
    made = make(Calls(latency_s=0.0), wait_s=0.0)

    assert uvloop.run(submit_all(made, range(3))) == [0, 1, 4]


async def test_a_full_batch_is_called_at_once() -> None:
    calls = Calls()

    taken_s = await elapsed_s(submit_all(make(calls), range(8)))

    assert calls.batches == [list(range(8))]
    assert taken_s == pytest.approx(1.0)


async def test_a_batch_that_does_not_fill_is_called_when_its_first_item_has_waited() -> None:
    calls = Calls()

    taken_s = await elapsed_s(submit_all(make(calls), range(3)))

    assert calls.batches == [[0, 1, 2]]
    assert taken_s == pytest.approx(1.1)


async def test_without_a_wait_a_batch_takes_what_comes_at_the_same_moment() -> None:
    calls = Calls()

    results = await submit_all(make(calls, wait_s=0.0), range(5))

    assert (calls.batches, results) == ([[0, 1, 2, 3, 4]], [0, 1, 4, 9, 16])


async def test_a_batch_is_closed_before_it_is_too_heavy() -> None:
    calls = Calls()

    await submit_all(make(calls, size_bytes=10), range(5), size_bytes=4)

    assert calls.batches == [[0, 1], [2, 3], [4]]


async def test_an_item_above_the_byte_limit_goes_alone() -> None:
    calls = Calls()

    assert await submit_all(make(calls, size_bytes=10), [7, 8], size_bytes=11) == [49, 64]
    assert calls.batches == [[7], [8]]


async def test_items_gather_on_while_every_call_is_taken() -> None:
    calls = Calls()
    batcher = make(calls, at_a_time=1)
    first = asyncio.create_task(submit_all(batcher, [1]))
    await asyncio.sleep(0.2)

    await asyncio.gather(*(submit_all(batcher, [item]) for item in (2, 3, 4)), first)

    assert (calls.batches, calls.peak) == ([[1], [2, 3, 4]], 1)


async def test_an_item_that_must_go_alone_does() -> None:
    calls = Calls()
    batcher = make(calls)

    await asyncio.gather(submit_all(batcher, [1, 2]), batcher.submit(3, 1, alone=True))

    assert sorted(calls.batches) == [[1, 2], [3]]


async def test_one_bad_item_of_eight_fails_alone() -> None:
    calls = Calls(poison=frozenset({5}))

    results = await submit_all(make(calls), range(8))

    assert isinstance(results.pop(5), InvalidRequest)
    assert results == [0, 1, 4, 9, 16, 36, 49]
    assert [len(batch) for batch in calls.batches] == [8, 4, 4, 2, 2, 1, 1]


async def test_a_failure_no_item_can_cause_goes_to_every_item_and_nothing_is_split() -> None:
    calls = Calls()
    calls.error = Throttled("slow down", retry_after_s=7.0)

    results = await submit_all(make(calls), range(8))

    assert len(calls.batches) == 1
    assert [(type(result), getattr(result, "retry_after_s", 0)) for result in results] == [(Throttled, 7.0)] * 8


async def test_a_failed_call_counts_once_and_its_items_share_no_exception() -> None:
    calls = Calls()
    calls.error = Throttled("slow down")

    results = await submit_all(make(calls), range(4))

    assert [is_echo(result) for result in results if isinstance(result, Exception)] == [False, True, True, True]
    assert len(set(map(id, results))) == 4


async def test_an_item_without_an_answer_of_its_own_is_called_alone() -> None:
    calls = Calls()
    calls.unmatched = {2, 6}

    results = await submit_all(make(calls), range(8))

    assert results == [item**2 for item in range(8)]
    assert calls.batches[1:] == [[2], [6]]


async def test_a_call_with_too_few_outcomes_is_split_not_guessed() -> None:
    batches = []

    async def short(items: Sequence[int]) -> list[int | Exception]:
        batches.append(len(items))
        return [item**2 for item in (items if len(items) == 1 else items[1:])]

    batcher = Batcher(short, Limits(4, 1000, 0.1, 4), lambda _error: False)

    assert await submit_all(batcher, range(4)) == [0, 1, 4, 9]
    assert batches == [4, 2, 2, 1, 1, 1, 1]


async def test_a_cancelled_item_is_taken_out_before_the_call() -> None:
    calls = Calls()
    batcher = make(calls)
    leaver = asyncio.create_task(batcher.submit(1, 1))
    stayer = asyncio.create_task(batcher.submit(2, 1))
    await settled()

    leaver.cancel()

    assert await stayer == 4
    assert calls.batches == [[2]]
    assert batcher.waiting == 0


async def test_a_cancelled_item_does_not_fill_a_batch() -> None:
    calls = Calls()
    batcher = make(calls, items=3)
    stayer, leaver = (asyncio.create_task(batcher.submit(item, 1)) for item in (1, 2))
    await settled()
    leaver.cancel()
    await settled()
    late = asyncio.create_task(batcher.submit(3, 1))
    await settled()

    assert (calls.batches, batcher.waiting) == ([], 2)
    assert (await stayer, await late) == (1, 9)


async def test_an_item_that_is_cancelled_in_the_moment_in_which_a_call_is_formed_is_not_in_it() -> None:
    calls = Calls()
    batcher = make(calls, items=2)
    leaver = asyncio.create_task(batcher.submit(1, 1))
    await settled()

    leaver.cancel()

    # Before the leaver has taken itself out.
    assert await batcher.submit(2, 1) == 4
    assert calls.batches == [[2]]


async def test_an_item_that_is_cancelled_behind_the_first_of_a_full_batch_is_not_called() -> None:
    calls = Calls()
    batcher = make(calls, items=3)
    stayer, leaver = (asyncio.create_task(batcher.submit(item, 1)) for item in (1, 2))
    await settled()

    leaver.cancel()

    assert await batcher.submit(3, 1) == 9
    assert (await stayer, calls.batches) == (1, [[1, 3]])


async def test_an_item_that_must_go_alone_and_is_cancelled_while_it_waits_for_a_call_is_not_called() -> None:
    calls = Calls()
    batcher = make(calls, items=1, at_a_time=1)
    first, leaver, stayer = (
        asyncio.create_task(batcher.submit(item, 1, alone=item == 2)) for item in (1, 2, 3)
    )  # fmt: skip
    await settled()

    leaver.cancel()

    assert (await first, await stayer) == (1, 9)
    assert calls.batches == [[1], [3]]


async def test_an_item_that_leaves_a_call_which_fails_is_in_no_half_of_it() -> None:
    calls = Calls(poison=frozenset({1}))
    batcher = make(calls, items=4)
    items = [asyncio.create_task(batcher.submit(item, 1)) for item in range(4)]
    await asyncio.sleep(0.5)

    items[0].cancel()
    await asyncio.gather(*items, return_exceptions=True)

    assert calls.batches == [[0, 1, 2, 3], [1], [2, 3]]


async def test_cancelled_items_weigh_nothing() -> None:
    calls = Calls()
    batcher = make(calls, size_bytes=10)
    leaver = asyncio.create_task(batcher.submit(1, 9))
    await settled()
    leaver.cancel()
    await settled()

    taken_s = await elapsed_s(submit_all(batcher, [2, 3], size_bytes=4))

    assert calls.batches == [[2, 3]]
    assert taken_s == pytest.approx(1.1)


async def test_cancelling_one_item_of_a_call_does_not_cancel_the_call() -> None:
    calls = Calls()
    batcher = make(calls, items=2)
    leaver, stayer = (asyncio.create_task(batcher.submit(item, 1)) for item in (1, 2))
    await settled()

    leaver.cancel()

    assert await stayer == 4
    assert calls.cancelled == 0


async def test_a_call_that_nobody_waits_for_is_cancelled() -> None:
    calls = Calls()
    batcher = make(calls, items=2)
    both = [asyncio.create_task(batcher.submit(item, 1)) for item in (1, 2)]
    await settled()

    for one in both:
        one.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    await settled()

    assert (calls.cancelled, batcher.running) == (1, 0)


async def test_a_call_cancelled_from_within_leaves_nobody_waiting() -> None:
    async def cancelled(_items: Sequence[int]) -> list[int | Exception]:
        raise asyncio.CancelledError

    batcher = Batcher(cancelled, Limits(2, 1000, 0.1, 1), lambda _error: False)

    results = await submit_all(batcher, [1, 2])

    assert [type(result) for result in results] == [asyncio.CancelledError] * 2


ITEM = st.tuples(st.floats(0, 3), st.integers(1, 40), st.none() | st.floats(0, 3))


@given(
    items=st.lists(ITEM, min_size=1, max_size=40),
    limits=st.tuples(st.integers(1, 9), st.integers(1, 100), st.sampled_from([0.0, 0.05, 1.0]), st.integers(1, 4)),
    poison=st.frozensets(st.integers(0, 40), max_size=4),
    unmatched=st.sets(st.integers(0, 40), max_size=4),
)
def test_whatever_comes_and_goes_every_item_that_stays_gets_its_own_outcome(
    items: list[tuple[float, int, float | None]],
    limits: tuple[int, int, float, int],
    poison: frozenset[int],
    unmatched: set[int],
) -> None:
    calls = Calls(0.3, poison)
    calls.unmatched = unmatched

    async def one(batcher: Batcher[int, int], number: int) -> object:
        at_s, size_bytes, patience_s = items[number]
        await asyncio.sleep(at_s)
        try:
            async with asyncio.timeout(patience_s):
                return await batcher.submit(number, size_bytes)
        except InvalidRequest:
            return "bad"
        except TimeoutError:
            return "left"

    async def run() -> list[object]:
        batcher: Batcher[int, int] = Batcher(calls, Limits(*limits), lambda error: isinstance(error, InvalidRequest))
        outcomes = await asyncio.gather(*(one(batcher, number) for number in range(len(items))))
        await asyncio.sleep(60)
        assert (batcher.waiting, batcher.running, batcher._gathered_bytes, calls.in_flight) == (0, 0, 0, 0)
        return outcomes

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        outcomes = runner.run(run())

    for number, outcome in enumerate(outcomes):
        if outcome == "left":
            assert items[number][2] is not None
        else:
            assert outcome == ("bad" if number in poison else number**2)
    assert calls.peak <= limits[3]
    for batch in calls.batches:
        assert len(batch) <= limits[0]
        assert len(batch) == 1 or sum(items[number][1] for number in batch) <= limits[1]


@given(
    gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=30),
    max_items=st.integers(1, 6),
    wait_s=st.sampled_from([0.0, 0.1, 0.7]),
)
def test_with_a_free_call_no_item_waits_longer_than_the_limit_and_order_is_kept(
    gaps: list[float], max_items: int, wait_s: float
) -> None:
    calls = Calls(0.0)
    came_at: list[float] = []

    async def run() -> None:
        batcher = Batcher(calls, Limits(max_items, 1000, wait_s, 1000), lambda _error: False)
        tasks = []
        for number, gap in enumerate(gaps):
            await asyncio.sleep(gap)
            came_at.append(asyncio.get_running_loop().time())
            tasks.append(asyncio.create_task(batcher.submit(number, 1)))
        await asyncio.gather(*tasks)

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run())

    assert [number for batch in calls.batches for number in batch] == list(range(len(gaps)))
    for batch, began_at in zip(calls.batches, calls.began_at, strict=True):
        assert began_at - came_at[batch[0]] <= wait_s + 0.002


async def test_a_failed_call_is_one_failure_also_when_its_first_item_has_left() -> None:
    """Or else nobody would tell the gate, and the others would be called again at once."""
    calls = Calls()
    calls.error = Throttled("slow down")
    batcher = make(calls, items=3)
    first, *others = [asyncio.ensure_future(batcher.submit(item, 1)) for item in range(3)]
    await asyncio.sleep(0.5)
    first.cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert [is_echo(result) for result in results[1:] if isinstance(result, Exception)] == [False, True]


async def test_a_failure_in_the_moment_of_a_cancellation_leaves_nothing_for_the_collection_of_garbage() -> None:
    class Heavy:
        """Has a size that matters."""

    async def fails(_items: Sequence[Heavy]) -> list[int | Exception]:
        # Before the item goes on with its failure.
        asyncio.get_running_loop().call_soon(leaver.cancel)
        message = "slow down"
        raise Throttled(message)

    batcher: Batcher[Heavy, int] = Batcher(fails, Limits(2, 1000, 0.0, 1), lambda _error: False)
    heavy = Heavy()
    seen = weakref.ref(heavy)
    gc.disable()
    try:
        leaver = asyncio.create_task(batcher.submit(heavy, 1))
        del heavy
        await asyncio.wait([leaver])
        await settled()
        let_go_of_cancelled(leaver)

        assert (leaver.cancelled(), seen()) == (True, None)
    finally:
        gc.enable()
