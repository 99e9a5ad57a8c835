"""Gaps that a hostile review found."""

import asyncio

import pytest

from contracts.errors import ProviderUnavailable, as_unsent
from streams.engine.calls import PaidCalls
from streams.engine.dispatcher import Dispatcher, Slot
from streams.engine.gate import OUTAGE_FAILURES, Gate, Pass
from streams.engine.item import TP, Item, ResultRef
from streams.engine.ledger import Ledger
from streams.engine.mark import encode_mark, mark_fits
from streams.engine.work import Limits
from tests.streams.engine.support import RESULTS, TOPIC, TP0, answers, make_item
from tests.streams.engine.test_calls import AT, Model, let_go, run
from tests.streams.engine.test_engine import Bench, for_ever
from tests.streams.virtual_clock import settled


async def test_a_bulk_lane_full_of_resting_events_leaves_room_for_an_interactive_one() -> None:
    bench = Bench(for_ever, Limits(in_flight=4, ready_keys=10**6, held_events=80, held_bytes=10**6, uncommitted=10**6))
    bench.begin()
    bulk = bench.submit_later(*(make_item(n, lane="bulk") for n in range(100)))
    await settled()

    assert not bulk.done()
    assert await asyncio.wait_for(bench.engine.submit(make_item(500, lane="interactive"), 1), 1)


async def test_answers_that_wait_for_their_ack_are_bounded() -> None:
    started: list[int] = []

    async def never_acked(item: Item, slot: Slot) -> None:
        started.append(item.work)
        slot.settle()
        await asyncio.Event().wait()

    dispatcher = Dispatcher(never_acked, 100, ("standard",), lambda _error: None)
    for number in range(500):
        dispatcher.add(make_item(number))
    await settled()

    # As many that wait for their ack as there are slots, and what held a slot when that was reached.
    assert 100 <= len(started) <= 200


async def test_a_call_that_the_provider_cancels_by_itself_is_a_failed_call() -> None:
    async def cancelled() -> str:
        raise asyncio.CancelledError

    calls: PaidCalls[str] = PaidCalls(len)
    with pytest.raises(ProviderUnavailable):
        await calls.run(AT, cancelled, lambda: None)


@pytest.mark.parametrize("is_sent", [True, False])
async def test_who_waits_for_a_call_that_is_cut_off_is_told_whether_it_may_be_paid_for(
    is_sent: bool,
) -> None:
    async def slow() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as cancelled:
            if not is_sent:
                as_unsent(cancelled)
            raise
        return "not reached"

    calls: PaidCalls[str] = PaidCalls(len)
    first = asyncio.ensure_future(calls.run(AT, slow, lambda: None))
    await settled()
    second = asyncio.ensure_future(calls.run(AT, slow, lambda: None))
    await settled()
    first.cancel()

    with pytest.raises(ProviderUnavailable) as caught:
        await second
    assert caught.value.possibly_billed is is_sent


async def test_a_call_in_flight_is_not_dropped_to_make_room_for_answers() -> None:
    async def slow() -> str:
        await asyncio.sleep(10)
        return "paid for"

    calls: PaidCalls[str] = PaidCalls(len, max_kept=1)
    hanging = asyncio.ensure_future(calls.run(AT, slow, lambda: None))
    await settled()
    let_go(calls)
    other = AT._replace(offset=2)
    _quick = run(calls, Model(), other)
    await settled()
    let_go(calls, other)
    await asyncio.sleep(2)

    assert (AT in calls, other in calls) == (True, False)
    hanging.cancel()


async def test_a_cut_that_comes_together_with_the_opening_of_a_gate_is_not_swallowed() -> None:
    gate = Gate(lambda _reason: None)
    for _ in range(OUTAGE_FAILURES):
        gate.failed("provider_unavailable", gate.ticket() or Pass(-1), is_fault=False)
    probe = await gate.enter(10)
    assert probe is not None
    waiting = asyncio.ensure_future(gate.enter(10))
    await settled()
    gate.succeeded(probe)
    waiting.cancel()
    await asyncio.wait([waiting])

    assert waiting.cancelled()


def test_a_record_delivered_again_is_in_hand_already() -> None:
    ledger = Ledger(900, {RESULTS: 0})
    for offset in range(900, 1001):
        ledger.take(offset, 5_000 + offset)

    assert ledger.take(1000, 6_000) is None
    assert (ledger.commit_point, ledger.unfinished) == (900, 101)


async def test_the_mark_of_an_idle_partition_follows_the_other_lanes() -> None:
    bench = Bench()
    idle = TP("t.events.interactive.v1", 0)
    bench.begin(ledgers={TP0: Ledger(0, {RESULTS: 0}), idle: Ledger(0, {RESULTS: 0})})
    await bench.submit(*(make_item(n) for n in range(5)))
    await bench.idle()

    assert bench.engine.commits()[idle] == (0, {RESULTS: 5})


def test_the_mark_of_an_idle_partition_stays_while_answers_wait_for_their_events() -> None:
    ledger = Ledger(0, {RESULTS: 50}, answers({(7, 1007): ResultRef(RESULTS, 41)}))

    assert (ledger.is_idle, ledger.mark()) == (False, {RESULTS: 41})


async def test_an_exception_while_a_record_is_taken_ends_the_worker() -> None:
    bench = Bench()
    tenure = bench.begin()
    error = RuntimeError("a bug")
    bench.engine.crash(error)

    assert (bench.crashes, tenure.is_over) == ([error], True)


async def test_an_item_of_an_older_generation_is_never_worked_on() -> None:
    bench = Bench()
    bench.begin(generation=1)
    await bench.submit(make_item(0), generation=1)
    bench.begin(generation=2)
    await settled()

    assert bench.started == []


def test_marks_of_more_topics_than_fit_are_told_before_the_start() -> None:
    few = [TOPIC] * 3
    many = [f"{TOPIC}.{'x' * 200}.{number}" for number in range(20)]

    assert mark_fits(few)
    assert not mark_fits(many)
    assert encode_mark(dict.fromkeys(many, 1)) == "penstock1"
