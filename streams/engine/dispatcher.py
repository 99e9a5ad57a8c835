"""What runs when: order within a chain, lanes and tenants by weight, earliest deadline first, slots for model calls.

An item is queued, then runs, as one task where it needs one. It holds a slot from its start to the end of its model
call; its chain waits until its outcome is confirmed. So a slow broker ack keeps no slot, and a slow key no other key.
"""

import asyncio
import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from contracts.topics import RETRY_LANE
from streams.engine.fairness import FairQueue
from streams.engine.item import Item, State

# Turns of a lane in one round while several have something to run.
# A retry that is taken up before its time has come has two turns, one to start and one to go on.
LANE_WEIGHTS = {"interactive": 8, "standard": 4, "bulk": 1, RETRY_LANE: 2}
# An ack takes milliseconds; few slots must not be held up by it.
_MIN_SETTLING = 64
# Hundreds of calls begun in one instant are hundreds of connections opened at once, and answered at once if the model
# takes the same time for each, time after time. So the slots above the first few are handed out over a moment.
_AT_ONCE = 16
_EASE_S, _EASE_STEPS = 0.25, 25


class Slot(msgspec.Struct, eq=False):
    """The right to one model call, held by one item.

    Attributes:
        is_held: False between `release` and `acquire`.
        is_settling: the item only waits for its outcome's ack.
    """

    _dispatcher: "Dispatcher"
    _lane: str
    is_held: bool = True
    _is_lent: bool = False
    is_settling: bool = False

    def lend(self) -> Callable[[], None]:
        """Tie the slot to a call that may outlive the item; return what the call runs at its end."""
        self._is_lent = True
        return self.release

    @property
    def is_in_the_way(self) -> bool:
        """Tell whether others of its lane are not taken for what rests."""
        return self._lane in self._dispatcher.crowded

    @property
    def pays(self) -> bool:
        """Tell whether a call holds it right now."""
        return self.is_held and self._is_lent

    def item_ended(self) -> None:
        """Free the slot unless a call still holds it."""
        if self.is_held and not self._is_lent:
            self.release()

    def release(self) -> None:
        """Free the slot; more than once does no harm."""
        if self.is_held:
            self.is_held = self._is_lent = False
            self._dispatcher.slot_freed()

    def settle(self) -> None:
        """Free the slot; from now on the item only waits for its outcome's ack."""
        if not self.is_settling:
            self.is_settling = True
            self._dispatcher.settling += 1
        if self.is_held:
            self.release()

    async def acquire(self) -> None:
        """Take a slot again, before items of its lane that have not started."""
        if not self.is_held:
            await self._dispatcher.slot_for_running(self._lane)
            self.is_held = True


class Run(Protocol):
    """An item that runs without a task."""

    def cut(self) -> None:
        """Forget it: nothing is written for it any more, and what was written is not waited for."""
        ...


class Dispatcher:
    """Starts queued items.

    Args:
        run: works on one item; whatever it raises but CancelledError is a bug or a fatal fault.
        slots: model calls at a time.
        lanes: lane names; unknown ones get weight 1.
        on_crash: told what `run` raised.
        on_start: told how many items have started, so that there is room for others.
        tenant_weights: shares of tenants within a lane; 1 for those not named.
        prepare: told the items that start next; does for all of them what does not wait, and must not raise.
        arrived: how many of the calls that hold a slot have their answer already, and will release it in a moment:
            their slots are handed out at once, so that the model does not wait for us. `hand_out` when there are more.
        send: called right behind the first steps of items that have started together: what they ask for can go out.
        begin: begins items that start together without tasks; None for each that needs one. `ended` when one has.

    Attributes:
        crowded: lanes of which no more is taken, for what they hold already.
    """

    def __init__(
        self,
        run: Callable[[Item, Slot], Coroutine[Any, Any, None]],
        slots: int,
        lanes: Iterable[str],
        on_crash: Callable[[BaseException], None],
        on_start: Callable[[int], None] = lambda _number: None,
        tenant_weights: Mapping[str, float] | None = None,
        prepare: Callable[[Sequence[Item]], None] = lambda _items: None,
        arrived: Callable[[], int] = lambda: 0,
        send: Callable[[], object] = lambda: None,
        begin: Callable[[Sequence[tuple[Item, Slot]]], Sequence[Run | None]] = lambda starts: [None] * len(starts),
    ) -> None:
        self._run = run
        self._begin = begin
        self._on_start = on_start
        self._free = self._slots_in_all = slots
        # Not handed out yet, since work has just begun.
        self._withheld = 0
        self._easing: asyncio.TimerHandle | None = None
        # Answers that are paid for and not on the log yet; a crash pays them again, so they are bounded too.
        self._max_settling = max(slots, _MIN_SETTLING)
        self.settling = 0
        self._on_crash = on_crash
        self._ready = {lane: FairQueue(tenant_weights) for lane in lanes}
        self._queues = tuple(self._ready.values())
        self._turns: dict[str, int] = dict.fromkeys(self._ready, 0)
        self._chains: dict[Hashable, deque[Item]] = {}
        # Items that have started and want a slot again. After an outage there are many, most of them of a lane with a
        # backlog: they come before what has not started of their own lane only.
        self._resuming: dict[str, deque[asyncio.Future[None]]] = {lane: deque() for lane in self._ready}
        self._resuming_count = 0
        self._running: dict[Item, asyncio.Task[None] | Run] = {}
        self._slots: dict[Item, Slot] = {}
        self._prepare = prepare
        self._arrived = arrived
        self._send = send
        self._is_open = True
        self._is_due = False
        self.crowded: set[str] = set()

    def add(self, item: Item) -> None:
        """Queue an item: ready at once, or behind the one of its chain."""
        if item.chain is not None:
            waiting = self._chains.get(item.chain)
            if waiting is not None:
                waiting.append(item)
                return
            self._chains[item.chain] = deque()
        self._ready[item.lane].push(item)
        if not self._is_due:
            self.fill()

    def ready(self, lane: str) -> int:
        """Return how many items of a lane could run now but for a slot: distinct keys, by construction."""
        return self._ready[lane].count

    def ready_tenants(self, lane: str) -> int:
        """Return how many tenants these items belong to."""
        return self._ready[lane].tenants

    @property
    def queued(self) -> int:
        """Return how many items could run now but for a slot, all lanes together."""
        return sum(queue.count for queue in self._ready.values())

    def waits_behind(self, item: Item) -> bool:
        """Tell whether a queued item waits for an earlier one of its chain, rather than for a slot."""
        return item.chain is not None and item in self._chains.get(item.chain, ())

    @property
    def running(self) -> Mapping[Item, asyncio.Task[None] | Run]:
        """Return the items that have started and not ended, without those whose call goes on for a later tenure."""
        return self._running

    @property
    def tasks(self) -> dict[Item, asyncio.Task[None]]:
        """Return those of the running items that have a task."""
        return {item: task for item, task in self._running.items() if isinstance(task, asyncio.Task)}

    @property
    def in_flight(self) -> int:
        """Return how many items have started and not ended, detached ones included."""
        return len(self._slots)

    def detach_calls(self) -> list[Item]:
        """Let go of the items that are in a paid call, and return them.

        They go on, hold their slots and chains, and end by themselves; `running` does not show them any more.
        """
        paying = [item for item, slot in self._slots.items() if slot.pays and item in self._running]
        for item in paying:
            del self._running[item]
        return paying

    def cut(self) -> list[Item]:
        """Cut the running items that have no task, and return them."""
        found = [(item, run) for item, run in self._running.items() if not isinstance(run, asyncio.Task)]
        for item, run in found:
            run.cut()
            self.ended(item, self._slots[item])
        return [item for item, _ in found]

    def fill(self) -> None:
        """Have free slots handed out in the loop's next turn: together, which costs less than one by one."""
        if self._is_due:
            return
        try:
            asyncio.get_running_loop().call_soon(self.hand_out)
        except RuntimeError:
            # A task is thrown away with its loop: nothing starts any more.
            return
        self._is_due = True

    def hand_out(self) -> None:
        """Hand out free slots now; for a callback of the loop that knows of several, `fill` for everybody else."""
        self._is_due = False
        starting: list[Item] = []
        arrived, withheld = self._arrived(), self._withheld
        # Answers that have come will settle; a server that answers at once must not run ahead of us.
        while self._free + arrived > withheld and self.settling + arrived < self._max_settling:
            if self._resuming_count:
                item = self._next_or_resume()
                if item is None:
                    continue
            else:
                item = self._next() if self._is_open else None
                if item is None:
                    break
            self._free -= 1
            starting.append(item)
        if starting:
            self._prepare(starting)
            self._start(starting)
            # Behind the tasks, in the turn in which they run: one more turn is milliseconds when there is much to do.
            asyncio.get_running_loop().call_soon(self._send)

    def _next(self) -> Item | None:
        """Pick by smooth weighted round-robin among lanes that have something ready."""
        alone = None
        for queue in self._queues:
            if queue.count:
                if alone is not None:
                    return self._next_of_several()
                alone = queue
        return None if alone is None else alone.pop()

    def _next_of_several(self) -> Item:
        return self._ready[self._turn([lane for lane, queue in self._ready.items() if queue.count])].pop()

    def _next_or_resume(self) -> Item | None:
        """Pick as `_next`, with those that wait for a slot again; give one of them a slot and return None."""
        waiting, is_open = self._resuming, self._is_open
        lane = self._turn([name for name, queue in self._ready.items() if waiting[name] or (is_open and queue.count)])
        if not waiting[lane]:
            return self._ready[lane].pop()
        self._resuming_count -= 1
        waiter = waiting[lane].popleft()
        if not waiter.done():
            self._free -= 1
            waiter.set_result(None)
        return None

    def _turn(self, lanes: Sequence[str]) -> str:
        """Return whose turn it is among these lanes."""
        total = 0
        for lane in lanes:
            weight = LANE_WEIGHTS.get(lane, 1)
            self._turns[lane] += weight
            total += weight
        chosen = max(lanes, key=self._turns.__getitem__)
        self._turns[chosen] -= total
        return chosen

    def _start(self, items: Sequence[Item]) -> None:
        starts = [(item, Slot(self, item.lane)) for item in items]
        for item, slot in starts:
            item.state = State.CALLING
            self._slots[item] = slot
        for (item, slot), run in zip(starts, self._begin(starts), strict=True):
            self._running[item] = run or self._task(item, slot, self._run(item, slot))
        self._on_start(len(starts))

    def _task(self, item: Item, slot: Slot, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        # Not in a `finally` of the coroutine: that one never begins when the task is cut before its first step.
        task.add_done_callback(functools.partial(self._task_ended, item, slot))
        return task

    def goes_on(self, item: Item, slot: Slot, work: Coroutine[Any, Any, None]) -> None:
        """Give an item that runs without a task one after all, for the rest of its work."""
        task = self._task(item, slot, work)
        if item in self._running:
            self._running[item] = task

    def _task_ended(self, item: Item, slot: Slot, task: asyncio.Task[None]) -> None:
        try:
            error = task.exception()
        except asyncio.CancelledError:
            # Looked at, the task does not keep it: its traceback may name the task, and names all that the item had.
            error = None
        if error is not None:
            self._on_crash(error)
        self.ended(item, slot)

    def ended(self, item: Item, slot: Slot) -> None:
        """Let go of an item that ran, and let its chain go on."""
        self._running.pop(item, None)
        del self._slots[item]
        if item.chain is not None:
            waiting = self._chains.get(item.chain)
            if waiting:
                follower = waiting.popleft()
                self._ready[follower.lane].push(follower)
            elif waiting is not None:
                del self._chains[item.chain]
        if slot.is_settling:
            self.settling -= 1
        if slot.is_held:
            slot.item_ended()
        if not self._is_due:
            self.fill()

    def slot_freed(self) -> None:
        """Take a slot back and hand it on."""
        self._free += 1
        if not self._is_due:
            self.fill()

    async def slot_for_running(self, lane: str) -> None:
        """Wait for a slot, ahead of items of the lane that have not started."""
        waiter = asyncio.get_running_loop().create_future()
        waiting = self._resuming[lane]
        waiting.append(waiter)
        self._resuming_count += 1
        self.fill()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.slot_freed()
            else:
                # It must not use up a turn of its lane.
                with contextlib.suppress(ValueError):
                    waiting.remove(waiter)
                    self._resuming_count -= 1
            raise

    def forget_waiting(self) -> list[Item]:
        """Stop starting items and drop those that have not started; return them."""
        self._is_open = False
        self.crowded.clear()
        dropped = []
        for queue in self._ready.values():
            for item in queue.clear():
                dropped.append(item)
                dropped += self._chains.pop(item.chain, ()) if item.chain is not None else ()
        for chain in self._chains.values():
            # The head of these runs; it takes its chain away when it ends.
            dropped += chain
            chain.clear()
        return dropped

    def reopen(self) -> None:
        """Start items again: a few at once, the others within a quarter of a second."""
        self._is_open = True
        self._withheld = max(0, self._slots_in_all - _AT_ONCE)
        if self._easing is not None:
            self._easing.cancel()
        self._ease(max(1, math.ceil(self._withheld / _EASE_STEPS)))

    def _ease(self, step: int) -> None:
        """Hand out so many of the slots that are withheld, and again in a moment until there are none."""
        self._easing = None
        if self._withheld:
            self._easing = asyncio.get_running_loop().call_later(_EASE_S / _EASE_STEPS, self._ease, step)
            self._withheld = max(0, self._withheld - step)
        self.fill()
