"""Paid calls outlive the tenure that started them."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from contracts.codec import Position
from contracts.errors import ProviderUnavailable
from streams.engine.calls import PaidCalls
from tests.streams.virtual_clock import settled

AT = Position("t", 0, 1, 1000)


class Model:
    """Answers after a second, and counts."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.ends = 0
        self._error = error

    async def __call__(self) -> str:
        self.calls += 1
        await asyncio.sleep(1)
        if self._error is not None:
            raise self._error
        return f"answer {self.calls}"

    def ended(self) -> None:
        self.ends += 1


def run(calls: PaidCalls[str], model: Model, position: Position = AT) -> "asyncio.Task[str]":
    return asyncio.ensure_future(calls.run(position, model, model.ended))


def let_go(calls: PaidCalls[str], position: Position = AT) -> None:
    """Do what the engine does with an item in its call when the tenure ends."""
    calls.keep(position)


async def test_an_answer_is_returned_and_the_slot_told() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model()

    assert await run(calls, model) == "answer 1"
    assert model.ends == 1


async def test_a_call_goes_on_when_its_item_is_let_go_and_holds_its_slot() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model()
    _task = run(calls, model)
    await settled()
    let_go(calls)

    assert (AT in calls, model.ends) == (True, 0)

    await asyncio.sleep(1.1)

    assert (calls.kept, model.ends) == (1, 1)


async def test_the_redelivered_event_takes_the_kept_answer() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model()
    _task = run(calls, model)
    await settled()
    let_go(calls)
    await asyncio.sleep(1.1)

    assert await run(calls, model) == "answer 1"
    assert (model.calls, calls.kept) == (1, 0)


async def test_the_redelivered_event_joins_a_call_still_in_flight() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model()
    _task = run(calls, model)
    await settled()
    let_go(calls)
    again = run(calls, model)
    await asyncio.sleep(1.1)

    assert (again.result(), model.calls, model.ends) == ("answer 1", 1, 2)


async def test_an_event_at_the_same_offset_of_a_recreated_topic_gets_its_own_call() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model()
    _task = run(calls, model)
    await settled()
    let_go(calls)
    await asyncio.sleep(1.1)

    assert await run(calls, model, AT._replace(timestamp_ms=2000)) == "answer 2"


async def test_a_failed_call_is_not_kept() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    model = Model(ProviderUnavailable("down"))
    with pytest.raises(ProviderUnavailable):
        await run(calls, model)
    calls.keep(AT)

    assert (AT in calls, calls.kept, model.ends) == (False, 0, 1)


async def test_a_call_that_fails_after_its_item_was_let_go_leaves_nothing_behind() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    _task = run(calls, Model(ProviderUnavailable("down")))
    await settled()
    let_go(calls)
    await asyncio.sleep(1.1)

    assert (AT in calls, calls.kept) == (False, 0)


async def test_a_dropped_answer_is_forgotten() -> None:
    calls: PaidCalls[str] = PaidCalls(len)
    await run(calls, Model())
    calls.drop(AT)

    assert AT not in calls


async def _keep_answers(calls: PaidCalls[str], count: int, call: Callable[[], Awaitable[str]]) -> list[Position]:
    positions = [Position("t", 0, n, 1) for n in range(count)]
    for position in positions:
        await calls.run(position, call, lambda: None)
        calls.keep(position)
    await settled()
    return positions


async def test_kept_answers_are_bounded_in_number_the_oldest_go_first() -> None:
    calls: PaidCalls[str] = PaidCalls(len, max_kept=2)
    positions = await _keep_answers(calls, 4, Model())

    assert [position in calls for position in positions] == [False, False, True, True]


async def test_kept_answers_are_bounded_in_bytes() -> None:
    async def large() -> str:
        return "x" * 40

    calls: PaidCalls[str] = PaidCalls(len, max_kept_bytes=100)
    positions = await _keep_answers(calls, 4, large)

    assert [position in calls for position in positions] == [False, False, True, True]
