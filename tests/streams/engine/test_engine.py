"""The engine: limits of intake, and the hand-over of partitions."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import pytest

from contracts.metrics import PAUSED, REGISTRY
from streams.engine.calls import PaidCalls
from streams.engine.dispatcher import Slot
from streams.engine.engine import Engine
from streams.engine.item import TP, Item, ResultRef, State
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.engine.work import Limits
from tests.streams.engine.support import RESULTS, TP0, answers, make_item
from tests.streams.virtual_clock import elapsed_s, settled

WIDE = Limits(in_flight=4, ready_keys=1000, held_events=1000, held_bytes=10**6, uncommitted=1000)
Step = Callable[[Item, Slot, Tenure], Awaitable[None]]


async def a_second(_item: Item, _slot: Slot, _tenure: Tenure) -> None:
    await asyncio.sleep(1)


async def for_ever(_item: Item, _slot: Slot, _tenure: Tenure) -> None:
    await asyncio.Event().wait()


class Bench:
    """An engine, and what came of its work; a record of the outcome goes to `produced` under a permission."""

    def __init__(self, step: Step = a_second, limits: Limits = WIDE) -> None:
        self.step = step
        self.started: list[int] = []
        self.produced: list[int] = []
        self.kept: list[int] = []
        self.dropped: list[int] = []
        self.crashes: list[BaseException] = []
        self.is_valid = True
        self.engine = Engine(
            self._work,
            limits,
            ("interactive", "standard", "bulk"),
            self.crashes.append,
            lambda position: self.kept.append(position.offset),
            lambda position: self.dropped.append(position.offset),
        )

    async def _work(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:
        self.started.append(item.work)
        await self.step(item, slot, tenure)
        await tenure.permission()
        self.produced.append(item.work)
        return ResultRef(RESULTS, len(self.produced) - 1)

    def begin(self, generation: int = 1, ledgers: dict[TP, Ledger] | None = None) -> Tenure:
        tenure = Tenure(generation, lambda: self.is_valid)
        self.engine.prepare(tenure)
        self.engine.begin(tenure, {TP0: Ledger(0, {RESULTS: 0})} if ledgers is None else ledgers)
        return tenure

    async def submit(self, *items: Item, generation: int = 1) -> list[bool]:
        return [await self.engine.submit(item, generation) for item in items]

    def submit_later(self, *items: Item, generation: int = 1) -> "asyncio.Task[list[bool]]":
        return asyncio.ensure_future(self.submit(*items, generation=generation))

    async def idle(self) -> None:
        await settled(5)
        while running := self.engine._dispatcher.tasks:
            await asyncio.wait(list(running.values()), return_when=asyncio.FIRST_COMPLETED)
            # What a free slot or an ended chain lets start, starts in the loop's next turn.
            await settled(5)


def commit_point(bench: Bench) -> int:
    return bench.engine.commits()[TP0][0]


def paused(reason: str) -> float | None:
    return REGISTRY.get_sample_value("penstock_kafka_intake_paused", {"reason": reason})


async def test_finished_items_move_the_commit_point_and_the_mark() -> None:
    bench = Bench()
    bench.begin()
    await bench.submit(*(make_item(n) for n in range(3)))

    assert bench.engine.commits() == {TP0: (0, {RESULTS: 0})}

    await bench.idle()

    assert bench.engine.commits() == {TP0: (3, {RESULTS: 3})}
    assert bench.engine.spans() == {TP0: (3, 0)}


@pytest.mark.parametrize(
    ("name", "limits", "taken"),
    [
        ("ready_keys", Limits(1, 2, 1000, 10**6, 1000), 3),
        ("held_events", Limits(1, 1000, 3, 10**6, 1000), 3),
        ("held_bytes", Limits(1, 1000, 1000, 40, 1000), 3),
        ("uncommitted", Limits(1, 1000, 1000, 10**6, 3), 3),
    ],
)
async def test_each_limit_pauses_the_intake_says_so_and_resumes(name: str, limits: Limits, taken: int) -> None:
    bench = Bench(limits=limits)
    bench.begin()
    intake = bench.submit_later(*(make_item(n) for n in range(10)))
    await asyncio.sleep(0.5)

    assert (len(bench.engine.held), paused(name)) == (taken, 1)
    assert bench.engine.look_at < math.inf

    await intake
    await bench.idle()

    assert (intake.result(), bench.produced, paused(name)) == ([True] * 10, list(range(10)), 0)
    assert bench.engine.look_at == math.inf


async def test_an_event_that_may_be_answered_where_nobody_has_looked_is_not_taken() -> None:
    """What lies before it is finished first: then its answer is found from the commit on."""
    bench = Bench()
    found = {(1, 1001): ResultRef(RESULTS, 7), (1500, 2500): ResultRef(RESULTS, 40)}
    tenure = bench.begin(ledgers={TP0: Ledger(0, {RESULTS: 50}, answers(found, 1))})
    intake = bench.submit_later(*(make_item(n) for n in (0, 1, 1500)))
    await settled()

    assert (len(bench.engine.held), paused("answers"), bench.engine.wants_answers) == (1, 1, False)

    await bench.idle()

    assert (bench.engine.wants_answers, bench.engine.commits()) == (True, {TP0: (1500, {RESULTS: 40})})

    tenure.end()
    await bench.engine.close()

    assert (await intake, bench.started, paused("answers")) == ([True, True, False], [0], 0)


async def test_an_event_that_is_answered_already_is_a_move() -> None:
    """A worker that finds millions of them does not stand still."""
    bench = Bench()
    bench.begin(ledgers={TP0: Ledger(0, {RESULTS: 50}, answers({(0, 1000): ResultRef(RESULTS, 7)}))})
    await bench.submit(make_item(0))

    assert bench.engine.moves == 1


@pytest.mark.parametrize(
    ("limits", "is_crowded"),
    [
        (Limits(4, 1000, 3, 10**6, 1000), True),
        (Limits(4, 1000, 1000, 10**6, 3), True),
        (Limits(1, 2, 9, 9999, 99), False),
    ],
)
async def test_an_item_is_told_that_others_are_not_taken_for_what_rests(limits: Limits, is_crowded: bool) -> None:
    told: list[bool] = []

    async def look(_item: Item, slot: Slot, _tenure: Tenure) -> None:
        told.append(slot.is_in_the_way)
        await asyncio.sleep(1)
        told.append(slot.is_in_the_way)

    bench = Bench(look, limits)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()
    intake = bench.submit_later(*(make_item(n) for n in range(1, 6)))
    await asyncio.sleep(1.5)

    assert told[:2] == [False, is_crowded]

    await intake
    await bench.idle()

    assert told[-1] is False


async def test_a_paused_intake_goes_on_for_many_at_a_time_while_there_is_enough_to_go_on_with() -> None:
    async def one_a_second(item: Item, _slot: Slot, _tenure: Tenure) -> None:
        await asyncio.sleep(min(1 + item.work, 32))

    bench = Bench(one_a_second, Limits(32, 1000, 200, 10**6, 1000))
    bench.begin()
    intake = bench.submit_later(*(make_item(n) for n in range(300)))
    await settled()
    full = len(bench.engine.held)
    await asyncio.sleep(20.5)

    assert len(bench.engine.held) == full - 20

    await asyncio.sleep(25)

    assert len(bench.engine.held) > full - 20
    intake.cancel()


async def test_a_paused_intake_goes_on_at_once_where_what_is_held_is_not_ready() -> None:
    bench = Bench(limits=Limits(1, 1000, 200, 10**6, 1000))
    bench.begin()
    intake = bench.submit_later(*(make_item(n, "one key") for n in range(300)))
    await settled()
    full = len(bench.engine.held)
    await asyncio.sleep(20.5)

    assert (len(bench.produced), len(bench.engine.held)) == (20, full)
    intake.cancel()


async def test_the_items_of_a_bundle_are_taken_in_their_order_across_a_pause() -> None:
    bench = Bench(limits=Limits(1, 1000, 3, 10**6, 1000))
    bench.begin()
    await bench.engine.submit_all([make_item(n, "one key") for n in range(10)], 1)
    await bench.idle()

    assert bench.produced == list(range(10))


async def test_what_is_left_of_a_bundle_is_refused_once_the_tenure_ends() -> None:
    bench = Bench(for_ever, Limits(1, 1000, 1, 10**6, 1000))
    bench.begin()
    intake = asyncio.ensure_future(bench.engine.submit_all([make_item(n) for n in range(3)], 1))
    await settled()
    await bench.engine.close()
    bench.begin(2)
    await intake

    assert (bench.started, bench.engine.held) == ([0], ())


async def test_the_lookahead_counts_keys_so_a_run_of_one_key_does_not_stop_the_intake() -> None:
    bench = Bench(limits=Limits(1, 2, 1000, 10**6, 1000))
    bench.begin()
    items = [make_item(n, "one key") for n in range(50)]

    assert await elapsed_s(bench.submit(*items)) == 0

    await bench.idle()


async def test_each_tenant_with_something_ready_brings_its_own_lookahead() -> None:
    bench = Bench(for_ever, Limits(1, 2, 1000, 10**6, 1000))
    bench.begin()
    items = [make_item(number) for number in range(12)]
    for item in items[2::2]:
        item.tenant = "other"
    intake = bench.submit_later(*items)
    await settled()

    # One runs; two of each tenant wait for a slot.
    assert len(bench.engine.held) == 5
    intake.cancel()


async def test_an_event_larger_than_the_byte_limit_is_taken_alone() -> None:
    bench = Bench(limits=Limits(4, 1000, 1000, 100, 1000))
    bench.begin()
    intake = bench.submit_later(make_item(0, size_bytes=5000), make_item(1))
    await settled()

    assert [item.work for item in bench.engine.held] == [0]

    await intake
    await bench.idle()

    assert bench.produced == [0, 1]


async def test_the_uncommitted_limit_is_per_partition() -> None:
    other = TP(TP0.topic, 1)
    bench = Bench(for_ever, Limits(100, 1000, 1000, 10**6, 2))
    bench.begin(ledgers={TP0: Ledger(0), other: Ledger(0)})
    await bench.submit(make_item(0), make_item(1))

    assert await elapsed_s(bench.submit(make_item(0, partition=1))) == 0

    await bench.engine.close()


async def test_records_wait_until_the_books_are_loaded() -> None:
    bench = Bench()
    tenure = Tenure(1)
    bench.engine.prepare(tenure)
    intake = bench.submit_later(make_item(0))
    await asyncio.sleep(60)

    assert bench.started == []

    bench.engine.begin(tenure, {TP0: Ledger(0)})

    assert await intake == [True]
    await bench.idle()


async def test_a_record_of_an_old_generation_is_refused() -> None:
    bench = Bench()
    bench.begin(generation=2)

    assert await bench.submit(make_item(0), generation=1) == [False]
    assert bench.started == []


async def test_a_record_of_a_partition_without_books_is_refused() -> None:
    bench = Bench()
    bench.begin(ledgers={})

    assert await bench.submit(make_item(0)) == [False]


async def test_a_record_that_waits_for_room_is_refused_once_the_tenure_ends() -> None:
    bench = Bench(for_ever, Limits(1, 1000, 1, 10**6, 1000))
    bench.begin()
    intake = bench.submit_later(make_item(0), make_item(1))
    await settled()
    await bench.engine.drain(1)
    await bench.engine.close()

    assert await intake == [True, False]
    assert paused("held_events") == 0

    bench.begin()
    assert bench.engine.look_at == math.inf


async def test_a_record_that_waits_for_books_is_refused_once_the_tenure_ends() -> None:
    bench = Bench()
    bench.engine.prepare(Tenure(1))
    intake = bench.submit_later(make_item(0))
    await settled()
    await bench.engine.close()

    assert await intake == [False]


async def test_books_of_a_tenure_that_is_over_do_not_open_the_intake() -> None:
    bench = Bench()
    tenure = Tenure(1)
    bench.engine.prepare(tenure)
    await bench.engine.close()
    bench.engine.begin(tenure, {TP0: Ledger(0)})

    assert await bench.submit(make_item(0)) == [False]


async def test_an_answered_event_is_skipped_and_counts_as_finished() -> None:
    bench = Bench()
    answered = answers({(0, 1000): ResultRef(RESULTS, 4)})
    bench.begin(ledgers={TP0: Ledger(0, {RESULTS: 5}, answered)})
    await bench.submit(make_item(0), make_item(1))
    await bench.idle()

    assert (bench.started, bench.dropped, commit_point(bench)) == ([1], [0], 2)


async def test_a_drain_lets_what_has_started_finish_and_drops_the_rest() -> None:
    bench = Bench(limits=Limits(2, 1000, 1000, 10**6, 1000))
    bench.begin()
    await bench.submit(*(make_item(n) for n in range(6)))
    await settled()

    assert await elapsed_s(bench.engine.drain(30)) <= 1.1
    assert (bench.produced, commit_point(bench), bench.engine.held) == ([0, 1], 2, ())


async def test_a_drain_ends_at_its_bound() -> None:
    bench = Bench(for_ever)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()

    assert await elapsed_s(bench.engine.drain(30)) == pytest.approx(30, abs=0.1)

    await bench.engine.close()

    assert (bench.kept, bench.engine.held, bench.engine.in_flight) == ([0], (), 0)


async def test_a_drain_does_not_wait_for_items_that_rest_between_attempts() -> None:
    async def rest(item: Item, slot: Slot, _tenure: Tenure) -> None:
        slot.release()
        item.state = State.RESTING
        await asyncio.sleep(3600)

    bench = Bench(rest)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()

    assert await elapsed_s(bench.engine.drain(30)) < 0.2
    assert (bench.engine.held, commit_point(bench)) == ((), 0)


async def test_a_drain_without_a_valid_lease_does_not_wait() -> None:
    bench = Bench(for_ever)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()
    bench.is_valid = False

    assert await elapsed_s(bench.engine.drain(30)) == 0

    await bench.engine.close()


async def test_items_cut_before_their_first_step_are_not_held_for_ever() -> None:
    """Taken and given up within one turn of the loop: their coroutine never runs, not even a `finally` of it."""
    bench = Bench()
    bench.begin()
    await bench.submit(make_item(0), make_item(1, size_bytes=50))
    bench.is_valid = False
    await bench.engine.drain(30)
    await bench.engine.close()

    assert (bench.engine.held, bench.engine.in_flight, bench.engine._bytes.held) == ((), 0, 0)


async def test_nothing_is_produced_after_the_tenure_has_ended() -> None:
    bench = Bench()
    tenure = bench.begin()
    await bench.submit(make_item(0))
    await settled()
    tenure.end()
    await asyncio.sleep(2)

    assert (bench.produced, bench.kept, bench.crashes) == ([], [0], [])


async def test_nothing_is_produced_under_a_stale_lease() -> None:
    bench = Bench()
    bench.begin()
    await bench.submit(make_item(0))
    await settled()
    bench.is_valid = False
    await asyncio.sleep(60)

    assert bench.produced == []

    bench.is_valid = True
    await bench.idle()

    assert bench.produced == [0]


async def test_no_call_starts_under_a_stale_lease() -> None:
    bench = Bench()
    bench.begin()
    bench.is_valid = False
    await bench.submit(make_item(0))
    await asyncio.sleep(60)

    assert bench.started == []

    await bench.engine.close()


async def test_an_item_that_ends_late_does_not_finish_an_offset_of_the_next_tenure() -> None:
    async def stubborn(_item: Item, _slot: Slot, _tenure: Tenure) -> None:
        await asyncio.sleep(1)

    bench = Bench(stubborn)
    bench.begin(1)
    await bench.submit(make_item(0))
    await settled()
    # The group moved on without a hand-over.
    bench.begin(2)
    await asyncio.sleep(2)

    assert bench.engine.commits() == {TP0: (0, {RESULTS: 0})}


async def test_the_next_tenure_works_on_what_was_given_up() -> None:
    bench = Bench(for_ever)
    bench.begin(1)
    await bench.submit(make_item(0, "k"), make_item(1, "k"))
    await settled()
    await bench.engine.drain(1)
    await bench.engine.close()
    bench.step = a_second
    bench.begin(2)
    await bench.submit(make_item(0, "k"), make_item(1, "k"), generation=2)
    await bench.idle()

    assert (bench.produced, commit_point(bench)) == ([0, 1], 2)


async def test_a_fault_in_the_work_is_told_and_commits_nothing() -> None:
    async def broken(_item: Item, _slot: Slot, _tenure: Tenure) -> None:
        message = "not confirmed"
        raise RuntimeError(message)

    bench = Bench(broken)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()

    assert ([str(error) for error in bench.crashes], commit_point(bench)) == (["not confirmed"], 0)


class PaidBench(Bench):
    """Its work makes one paid call of ten seconds per event."""

    def __init__(self) -> None:
        super().__init__(self._call)
        self.calls: PaidCalls[str] = PaidCalls(len)
        self.made: list[int] = []
        self.engine = Engine(self._work, WIDE, ("standard",), self.crashes.append, self.calls.keep, self.calls.drop)

    async def _call(self, item: Item, slot: Slot, _tenure: Tenure) -> None:
        async def answer() -> str:
            self.made.append(item.work)
            await asyncio.sleep(10)
            return "answer"

        await self.calls.run(item.position, answer, slot.lend())

    async def hand_over(self, drain_s: float) -> None:
        await self.engine.drain(drain_s)
        await self.engine.close()


async def test_an_answer_that_comes_after_the_drain_is_taken_by_the_redelivered_event() -> None:
    bench = PaidBench()
    bench.begin(1)
    await bench.submit(make_item(0))
    await settled()
    await bench.hand_over(1)
    await asyncio.sleep(20)
    bench.begin(2)

    assert await elapsed_s(bench.submit(make_item(0), generation=2)) == 0
    await settled()

    assert (bench.made, bench.produced) == ([0], [0])


async def test_a_redelivered_event_joins_the_call_that_still_runs() -> None:
    bench = PaidBench()
    bench.begin(1)
    await bench.submit(make_item(0))
    await settled()
    await bench.hand_over(1)
    bench.begin(2)
    await bench.submit(make_item(0), generation=2)
    await bench.idle()

    assert (bench.made, bench.produced, bench.calls.kept) == ([0], [0], 0)


async def test_calls_that_outlive_their_tenure_count_as_in_flight() -> None:
    bench = PaidBench()
    bench.begin(1)
    await bench.submit(*(make_item(n) for n in range(4)))
    await settled()
    await bench.hand_over(1)
    bench.begin(2)
    await bench.submit(*(make_item(n) for n in range(4, 8)), generation=2)
    await settled()

    assert bench.made == [0, 1, 2, 3]

    await asyncio.sleep(9.5)

    assert bench.made == [0, 1, 2, 3, 4, 5, 6, 7]

    await bench.idle()


async def test_an_answer_found_on_the_log_drops_the_kept_one() -> None:
    bench = PaidBench()
    bench.begin(1)
    await bench.submit(make_item(0))
    await settled()
    await bench.hand_over(1)
    await asyncio.sleep(20)
    answered = answers({(0, 1000): ResultRef(RESULTS, 0)})
    bench.begin(2, {TP0: Ledger(0, {RESULTS: 1}, answered)})
    await bench.submit(make_item(0), generation=2)

    assert (bench.calls.kept, bench.produced, commit_point(bench)) == (0, [], 1)


def test_every_limit_has_a_reason_in_the_metric() -> None:
    for reason in ("ready_keys", "held_events", "held_bytes", "uncommitted", "handover"):
        PAUSED.labels(reason).set(0)
        assert paused(reason) == 0


async def test_work_that_nobody_asked_to_cancel_ends_the_worker_instead_of_the_event() -> None:
    async def cancelled(_item: Item, _slot: Slot, _tenure: Tenure) -> None:
        raise asyncio.CancelledError

    bench = Bench(cancelled)
    bench.begin()
    await bench.submit(make_item(0))
    await settled()

    assert [type(error) for error in bench.crashes] == [RuntimeError]
    assert commit_point(bench) == 0
