"""The dispatcher: order within chains, slots, lanes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from contracts.topics import RETRY_LANE
from streams.engine.dispatcher import LANE_WEIGHTS, Dispatcher, Slot
from streams.engine.item import Item
from tests.streams.engine.support import make_item
from tests.streams.virtual_clock import settled

LANES = ("interactive", "standard", "bulk")


class Bench:
    """A dispatcher, what it has started in which order, and what crashed."""

    def __init__(
        self,
        work: Callable[[Item, Slot], Awaitable[None]],
        slots: int = 1,
        arrived: Callable[[], int] = lambda: 0,
    ) -> None:
        self.started: list[int] = []
        self.ended: list[int] = []
        self.crashes: list[BaseException] = []
        self._work = work
        self.dispatcher = Dispatcher(self._run, slots, LANES, self.crashes.append, arrived=arrived)

    async def _run(self, item: Item, slot: Slot) -> None:
        self.started.append(item.work)
        await self._work(item, slot)
        self.ended.append(item.work)

    def add(self, *items: Item) -> None:
        for item in items:
            self.dispatcher.add(item)

    async def idle(self) -> None:
        await settled(5)
        while self.dispatcher.running:
            await asyncio.wait(list(self.dispatcher.tasks.values()))
            # What a free slot or an ended chain lets start, starts in the loop's next turn.
            await settled(5)


async def a_second(_item: Item, _slot: Slot) -> None:
    await asyncio.sleep(1)


async def test_items_of_one_chain_run_one_after_the_other_in_order() -> None:
    bench = Bench(a_second, slots=8)
    bench.add(*(make_item(offset, "k") for offset in range(4)))
    await settled()

    assert bench.started == [0]

    await bench.idle()

    assert bench.started == bench.ended == [0, 1, 2, 3]


async def test_a_slow_chain_holds_up_no_other() -> None:
    async def work(item: Item, _slot: Slot) -> None:
        await asyncio.sleep(1000 if item.chain == "slow" else 1)

    bench = Bench(work, slots=2)
    bench.add(make_item(0, "slow"), make_item(1, "slow"), *(make_item(n, f"k{n}") for n in range(2, 12)))
    await asyncio.sleep(11)

    assert bench.ended == list(range(2, 12))


async def test_items_without_a_chain_run_side_by_side() -> None:
    bench = Bench(a_second, slots=3)
    bench.add(*(make_item(offset) for offset in range(5)))
    await settled()

    assert bench.started == [0, 1, 2]


@pytest.mark.parametrize("free", [Slot.release, Slot.settle])
async def test_the_slot_is_free_at_the_answer_while_the_chain_waits_for_the_ack(free: Callable[[Slot], None]) -> None:
    async def work(_item: Item, slot: Slot) -> None:
        await asyncio.sleep(1)
        free(slot)
        await asyncio.sleep(100)

    bench = Bench(work)
    bench.add(make_item(0, "a"), make_item(1, "a"), make_item(2, "b"))
    await asyncio.sleep(1.5)

    assert bench.started == [0, 2]


async def test_a_released_slot_is_not_released_twice() -> None:
    async def work(_item: Item, slot: Slot) -> None:
        slot.release()
        slot.release()
        await asyncio.sleep(1)

    bench = Bench(work)
    bench.add(*(make_item(offset) for offset in range(5)))
    await bench.idle()
    bench.started.clear()

    async def hold(_item: Item, _slot: Slot) -> None:
        await asyncio.sleep(1)

    bench._work = hold
    bench.add(*(make_item(offset) for offset in range(5)))
    await settled()

    assert bench.started == [0]


async def test_an_item_that_takes_its_slot_again_goes_before_those_that_have_not_started() -> None:
    log: list[str] = []

    async def work(item: Item, slot: Slot) -> None:
        if item.work == 0:
            slot.release()
            await asyncio.sleep(1.5)
            await slot.acquire()
            log.append("again")
        else:
            log.append(f"start {item.work}")
        await asyncio.sleep(1)

    bench = Bench(work)
    bench.add(*(make_item(offset) for offset in range(4)))
    await bench.idle()

    assert log == ["start 1", "start 2", "again", "start 3"]


async def test_those_that_take_their_slots_again_come_first_in_their_lane_only() -> None:
    """As when an outage ends: a lane with a backlog must not stand in front of the others."""
    is_over = asyncio.Event()
    called: list[int] = []

    async def work(item: Item, slot: Slot) -> None:
        if item.lane == "bulk":
            slot.release()
            await is_over.wait()
            await slot.acquire()
        called.append(item.work)
        await asyncio.sleep(1)

    bench = Bench(work)
    bench.add(*(make_item(n, lane="bulk") for n in range(40)))
    await asyncio.sleep(0.1)
    is_over.set()
    await asyncio.sleep(0.1)
    bench.add(*(make_item(100 + n, lane="interactive") for n in range(40)), make_item(40, lane="bulk"))
    await asyncio.sleep(18.1)

    assert sorted(called[1:19]) == [1, 2, *range(100, 116)]


async def test_those_that_take_their_slots_again_get_them_while_nothing_new_is_started() -> None:
    async def work(_item: Item, slot: Slot) -> None:
        slot.release()
        await asyncio.sleep(1)
        await slot.acquire()

    bench = Bench(work)
    bench.add(make_item(0, lane="bulk"), make_item(1, "k"))
    await settled()
    bench.dispatcher.forget_waiting()
    bench.add(make_item(2, lane="interactive"))
    await bench.idle()

    assert sorted(bench.ended) == [0, 1]


async def test_a_cancelled_wait_for_a_slot_gives_the_slot_back() -> None:
    async def work(item: Item, slot: Slot) -> None:
        if item.work == 0:
            slot.release()
            await slot.acquire()
        await asyncio.sleep(1)

    bench = Bench(work)
    first, second, third = (make_item(offset) for offset in range(3))
    bench.add(first, second, third)
    await settled()
    bench.dispatcher.tasks[first].cancel()
    await bench.idle()

    assert bench.ended == [1, 2]


async def test_a_cancelled_wait_for_a_slot_uses_up_no_turn_of_its_lane() -> None:
    is_over = asyncio.Event()

    async def work(item: Item, slot: Slot) -> None:
        if item.lane == "bulk":
            slot.release()
            await is_over.wait()
            await slot.acquire()
        await asyncio.sleep(1)

    bench = Bench(work)
    bench.add(*(make_item(n, lane="bulk") for n in range(20)))
    await asyncio.sleep(0.1)
    is_over.set()
    await asyncio.sleep(0.1)
    bench.add(*(make_item(100 + n, lane="interactive") for n in range(40)))
    for item, task in bench.dispatcher.tasks.items():
        if 0 < item.work < 19:
            task.cancel()
    await asyncio.sleep(11)

    assert 19 in bench.ended


async def test_a_slot_that_is_handed_over_in_the_moment_of_a_cancellation_is_given_back() -> None:
    async def work(item: Item, slot: Slot) -> None:
        task = asyncio.current_task()
        if item.work == 0 and task is not None:
            slot.release()
            # Behind the handing out, and before this goes on.
            asyncio.get_running_loop().call_soon(task.cancel)
            await slot.acquire()
        await asyncio.sleep(1)

    bench = Bench(work)
    bench.add(*(make_item(offset) for offset in range(3)))
    await bench.idle()

    assert bench.ended == [1, 2]


async def test_a_lent_slot_is_held_until_the_call_ends_even_when_the_item_is_gone() -> None:
    ends: list[Callable[[], None]] = []

    async def work(item: Item, slot: Slot) -> None:
        if item.work == 0:
            ends.append(slot.lend())
            await asyncio.Event().wait()

    bench = Bench(work)
    first = make_item(0)
    bench.add(first, make_item(1))
    await settled()
    bench.dispatcher.tasks[first].cancel()
    await settled()

    assert bench.started == [0]

    ends[0]()
    await settled()

    assert bench.started == [0, 1]


async def test_lanes_share_slots_by_their_weights() -> None:
    bench = Bench(a_second)
    blocker = make_item(-1)
    bench.add(blocker)
    await asyncio.sleep(0)
    for base, lane in enumerate(LANES):
        bench.add(*(make_item(1000 * (base + 1) + n, lane=lane) for n in range(40)))
    await asyncio.sleep(26.5)
    counts = [sum(1 for n in bench.started[1:27] if n // 1000 == base) for base in (1, 2, 3)]

    assert dict(zip(LANES, counts, strict=True)) == {"interactive": 16, "standard": 8, "bulk": 2}
    assert LANE_WEIGHTS == {"interactive": 8, "standard": 4, "bulk": 1, RETRY_LANE: 2}


async def test_a_lane_alone_takes_every_slot() -> None:
    bench = Bench(a_second, slots=4)
    bench.add(*(make_item(n, lane="bulk") for n in range(8)))
    await settled()

    assert bench.started == [0, 1, 2, 3]


async def test_ready_counts_chains_not_items() -> None:
    bench = Bench(a_second)
    bench.add(make_item(0, "running"), *(make_item(n, "k") for n in range(1, 6)), make_item(9, "other"))
    await settled()

    assert bench.dispatcher.ready("standard") == 2

    await bench.idle()


async def test_forgetting_drops_everything_that_has_not_started_and_nothing_else() -> None:
    bench = Bench(a_second, slots=2)
    items = [make_item(0, "a"), make_item(1, "a"), make_item(2, "b"), make_item(3, "c"), make_item(4, "c")]
    bench.add(*items)
    await settled()
    dropped = bench.dispatcher.forget_waiting()
    await bench.idle()

    assert sorted(item.work for item in dropped) == [1, 3, 4]
    assert bench.ended == [0, 2]


async def test_nothing_starts_between_forgetting_and_reopening() -> None:
    bench = Bench(a_second)
    bench.dispatcher.forget_waiting()
    bench.add(make_item(0))
    await settled()

    assert bench.started == []

    bench.dispatcher.reopen()
    await settled()

    assert bench.started == [0]


async def test_a_chain_goes_on_in_the_next_tenure() -> None:
    bench = Bench(a_second)
    bench.add(make_item(0, "a"), make_item(1, "a"))
    await settled()
    bench.dispatcher.forget_waiting()
    await bench.idle()
    bench.dispatcher.reopen()
    bench.add(make_item(1, "a"))
    await bench.idle()

    assert bench.ended == [0, 1]


async def test_a_fault_is_told_and_frees_slot_and_chain() -> None:
    async def work(item: Item, _slot: Slot) -> None:
        if item.work == 0:
            message = "broken"
            raise RuntimeError(message)

    bench = Bench(work)
    failing = make_item(0, "a")
    bench.add(failing, make_item(1, "a"))
    await asyncio.sleep(0)
    task = bench.dispatcher.tasks[failing]
    await settled()

    assert [str(error) for error in bench.crashes] == ["broken"]
    assert bench.ended == [1]
    with pytest.raises(RuntimeError):
        await task


async def test_an_item_that_is_cut_before_its_first_step_gives_back_slot_and_chain() -> None:
    bench = Bench(a_second)
    first = make_item(0, "a")
    bench.add(first, make_item(1, "a"))
    bench.dispatcher.hand_out()
    bench.dispatcher.tasks[first].cancel()
    await bench.idle()

    assert bench.ended == [1]


async def test_a_call_that_is_let_go_holds_its_slot_and_its_chain_to_its_end() -> None:
    async def work(_item: Item, slot: Slot) -> None:
        end = slot.lend()
        await asyncio.sleep(10)
        end()

    bench = Bench(work, slots=2)
    bench.add(make_item(0, "a"), make_item(1, "b"))
    await settled()
    bench.dispatcher.forget_waiting()

    assert [item.work for item in bench.dispatcher.detach_calls()] == [0, 1]
    assert (len(bench.dispatcher.running), bench.dispatcher.in_flight) == (0, 2)

    bench.dispatcher.reopen()
    bench.add(make_item(0, "a"), make_item(2, "c"))
    await asyncio.sleep(5)

    assert bench.started == [0, 1]

    await asyncio.sleep(6)

    assert bench.started[:2] == [0, 1]
    assert sorted(bench.started[2:]) == [0, 2]


async def test_only_calls_are_let_go() -> None:
    async def work(item: Item, slot: Slot) -> None:
        end = slot.lend()
        if item.work == 0:
            end()
        await asyncio.sleep(10)

    bench = Bench(work, slots=4)
    bench.add(make_item(0), make_item(1))
    await settled()

    assert [item.work for item in bench.dispatcher.detach_calls()] == [1]
    assert [item.work for item in bench.dispatcher.running] == [0]


async def test_within_a_lane_tenants_share_the_slots() -> None:
    bench = Bench(a_second)
    for number in range(20):
        item = make_item(number)
        item.tenant = "flood"
        bench.add(item)
    for number in range(20, 23):
        item = make_item(number)
        item.tenant = "small"
        bench.add(item)
    await asyncio.sleep(7.5)

    assert {20, 21, 22} <= set(bench.started)


async def test_what_starts_together_is_prepared_together() -> None:
    prepared: list[list[int]] = []

    async def work(_item: Item, _slot: Slot) -> None:
        assert prepared

    def prepare(items: Sequence[Item]) -> None:
        prepared.append([item.work for item in items])

    crashes: list[BaseException] = []
    dispatcher = Dispatcher(work, 2, LANES, crashes.append, prepare=prepare)
    for number in range(3):
        dispatcher.add(make_item(number))
    await settled()

    assert (prepared, crashes) == ([[0, 1], [2]], [])


async def test_what_items_ask_for_that_start_together_is_sent_in_the_turn_in_which_they_run() -> None:
    order: list[str] = []

    async def work(item: Item, _slot: Slot) -> None:
        order.append(f"{item.work} asks")
        asyncio.get_running_loop().call_soon(order.append, "next turn")

    dispatcher = Dispatcher(work, 2, LANES, lambda _error: None, send=lambda: order.append("sent"))
    for number in range(2):
        dispatcher.add(make_item(number))
    await settled()

    assert order == ["0 asks", "1 asks", "sent", "next turn", "next turn"]


async def test_slots_that_are_handed_out_for_answers_begin_their_calls_in_the_next_turn() -> None:
    arrived = 0
    bench = Bench(a_second, 1, lambda: arrived)
    bench.add(*map(make_item, range(2)))
    await settled()
    arrived = 1
    bench.dispatcher.hand_out()
    await asyncio.sleep(0)

    assert bench.started == [0, 1]


async def test_a_slot_whose_answer_has_come_is_handed_out_before_its_call_goes_on() -> None:
    arrived = 0
    bench = Bench(a_second, 2, lambda: arrived)
    bench.add(*map(make_item, range(5)))
    await settled()

    assert bench.started == [0, 1]

    arrived = 1
    bench.dispatcher.fill()
    await settled()

    assert bench.started == [0, 1, 2]

    # It goes on: what it holds and what has come count one less, both.
    arrived = 0
    bench.dispatcher.fill()
    await settled()

    assert bench.started == [0, 1, 2], "two calls are at the model"


async def test_answers_that_nobody_takes_up_do_not_let_calls_run_ahead_without_bound() -> None:
    # Every call is answered at once, and no answer is given.
    bench = Bench(a_second, 64, lambda: len(bench.started))
    bench.add(*map(make_item, range(1000)))
    for _ in range(20):
        bench.dispatcher.fill()
        await settled(5)

    assert len(bench.started) == 64


async def test_slots_above_a_few_are_handed_out_over_a_moment_when_work_begins() -> None:
    begun_at = list[float]()
    loop = asyncio.get_running_loop()

    async def work(_item: Item, _slot: Slot) -> None:
        begun_at.append(loop.time())
        await asyncio.sleep(10)

    dispatcher = Dispatcher(work, 64, LANES, lambda _error: None)
    dispatcher.forget_waiting()
    opened_at = loop.time()
    dispatcher.reopen()
    for offset in range(100):
        dispatcher.add(make_item(offset))
    await asyncio.sleep(1)

    waited = [at - opened_at for at in begun_at]
    assert len(waited) == 64
    assert sum(seconds < 0.001 for seconds in waited) <= 20
    assert waited[32] == pytest.approx(0.125, abs=0.06)
    assert 0.2 < waited[-1] <= 0.25


async def test_a_second_beginning_withholds_slots_anew_and_hands_out_all_in_the_end() -> None:
    bench = Bench(a_second, 64)
    bench.dispatcher.reopen()
    await asyncio.sleep(0.2)
    bench.dispatcher.forget_waiting()
    bench.dispatcher.reopen()
    bench.add(*map(make_item, range(100)))
    await settled()

    assert len(bench.started) < 32

    await asyncio.sleep(0.3)

    assert len(bench.started) == 64
