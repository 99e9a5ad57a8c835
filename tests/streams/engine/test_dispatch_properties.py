"""Whatever comes in whatever order: what the dispatcher promises, on a virtual clock."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.codec import Position
from streams.engine.dispatcher import Dispatcher, Slot
from streams.engine.item import Item
from tests.streams.virtual_clock import VirtualClockLoop, settled

LANES = ("interactive", "standard", "bulk")


@dataclass
class Arrival:
    """One item, what its work does, and how long after the one before it comes."""

    after_s: float
    chain: str | None
    lane: str
    tenant: str
    call_s: float
    ack_s: float
    rest_s: float
    is_cut: bool
    is_straight: bool


class Straight:
    """An item that runs without a task of the dispatcher's, until it is cut."""

    def __init__(self, world: "World", dispatcher: Dispatcher, item: Item, slot: Slot) -> None:
        self._dispatcher, self._item, self._slot = dispatcher, item, slot
        self._is_cut = False
        self._task = asyncio.ensure_future(self._run(world))

    def cut(self) -> None:
        self._is_cut = True
        self._task.cancel()

    async def _run(self, world: "World") -> None:
        plan: Arrival = self._item.work
        if plan.rest_s:
            self._dispatcher.goes_on(self._item, self._slot, world.work(self._item, self._slot))
            return
        await world.work(self._item, self._slot)
        if not self._is_cut:
            self._dispatcher.ended(self._item, self._slot)


arrivals = st.lists(
    st.builds(
        Arrival,
        after_s=st.sampled_from((0.0, 0.0, 0.1, 2.0)),
        chain=st.sampled_from((None, "a", "b", "c", "d")),
        lane=st.sampled_from(LANES),
        tenant=st.sampled_from(("x", "y")),
        call_s=st.sampled_from((0.0, 0.5, 1.0, 30.0)),
        ack_s=st.sampled_from((0.0, 0.1, 5.0)),
        rest_s=st.sampled_from((0.0, 0.0, 0.0, 3.0)),
        is_cut=st.sampled_from((False, False, False, False, True)),
        is_straight=st.booleans(),
    ),
    max_size=60,
)


@dataclass
class World:
    """Runs arrivals and watches the rules while they run."""

    slots: int
    calling: int = 0
    most: int = 0
    started: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    busy: set[str] = field(default_factory=set)
    ended: list[int] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    async def work(self, item: Item, slot: Slot) -> None:
        plan: Arrival = item.work
        number = item.position.offset
        if plan.chain is not None:
            if plan.chain in self.busy:
                self.broken.append(f"{number} began while {plan.chain} was busy")
            self.busy.add(plan.chain)
            self.started[plan.chain].append(number)
        try:
            await self._call(plan, slot)
        finally:
            self.busy.discard(plan.chain or "")
            self.ended.append(number)

    async def _call(self, plan: Arrival, slot: Slot) -> None:
        await self._hold(plan.call_s)
        if plan.rest_s:
            slot.release()
            await asyncio.sleep(plan.rest_s)
            await slot.acquire()
            await self._hold(plan.call_s)
        slot.settle()
        await asyncio.sleep(plan.ack_s)

    async def _hold(self, seconds: float) -> None:
        self.calling += 1
        self.most = max(self.most, self.calling)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.calling -= 1

    async def run(self, plan: list[Arrival]) -> None:
        def begin(starts: Sequence[tuple[Item, Slot]]) -> list[Straight | None]:
            return [Straight(self, dispatcher, item, slot) if item.work.is_straight else None for item, slot in starts]

        dispatcher = Dispatcher(
            self.work, self.slots, LANES, lambda error: self.broken.append(repr(error)), begin=begin
        )
        for number, one in enumerate(plan):
            await asyncio.sleep(one.after_s)
            item = Item(Position("t", 0, number, 0), one.chain, one.lane, 1, one, tenant=one.tenant)
            dispatcher.add(item)
            await settled(1)
            if one.is_cut and item in dispatcher.running:
                await settled(3)
                if item in dispatcher.tasks:
                    dispatcher.tasks[item].cancel()
            await settled(3)
            self._no_idle_slot(dispatcher)
        while dispatcher.running or dispatcher._is_due:
            if tasks := dispatcher.tasks:
                await asyncio.wait(list(tasks.values()), return_when=asyncio.FIRST_COMPLETED)
            elif dispatcher.running:
                await asyncio.sleep(0.1)
            await settled(3)
            self._no_idle_slot(dispatcher)
        if dispatcher.queued or dispatcher._chains or dispatcher._free != self.slots or dispatcher.settling:
            self.broken.append("something was left behind")

    def _no_idle_slot(self, dispatcher: Dispatcher) -> None:
        could_start = dispatcher._free > 0 and dispatcher.settling < dispatcher._max_settling
        # What is due starts in the loop's next turn.
        if dispatcher.queued and could_start and not dispatcher._is_due:
            self.broken.append("a slot was idle while something could run")


@settings(max_examples=150, deadline=None)
@given(arrivals, st.integers(1, 5))
def test_order_slots_and_every_item_once_whatever_comes(plan: list[Arrival], slots: int) -> None:
    world = World(slots)
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(world.run(plan))

    assert world.broken == []
    assert world.most <= slots
    assert all(numbers == sorted(numbers) for numbers in world.started.values())
    # An item that is cut before its first step has no end of its own; all others have exactly one.
    cut = {number for number, one in enumerate(plan) if one.is_cut}
    assert len(world.ended) == len(set(world.ended))
    assert set(range(len(plan))) - cut <= set(world.ended)
