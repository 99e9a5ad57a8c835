"""The engine: intake within limits, dispatch, books, and the hand-over of partitions.

One tenure at a time: `begin` after an assignment, `submit` per record, `commits` from time to time, `drain` when the
partitions are given up. See docs/architecture.md.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

from contracts.codec import Position
from contracts.metrics import ANSWERS, FM_QUEUE_DEPTH, HELD_BYTES, HELD_EVENTS, PAUSED, REMEMBERED, REPLAYED, Children
from streams.engine.dispatcher import Dispatcher, Run, Slot
from streams.engine.item import TP, Item, ResultRef, State
from streams.engine.ledger import Ledger, advance_idle
from streams.engine.shares import SharedLimit
from streams.engine.tenure import Tenure, TenureLostError
from streams.engine.work import Limits, Straight, Way, Work

_DRAIN_POLL_S = 0.05
_LIMITS = ("ready_keys", "held_events", "held_bytes", "uncommitted", "answers")
_CROWDED = {"held_events", "held_bytes", "uncommitted"}  # what rests can reach these alone
_paused = Children(PAUSED)


class Engine:
    """See the module.

    Args:
        work: what is done with an item.
        limits: how much is taken.
        lanes: names of the lanes.
        on_crash: told a fatal error, once.
        keep_answer: told the position of each item that was given up after it had started: its answer may be paid for.
        drop_answer: told the position of an event whose outcome turned out to be on the log already.
        replayed: told each item that an operator wants done again, before anything else is done with it.
        prepare: told the items that start next, together; does what does not wait, and must not raise.
        arrived: how many calls have their answer already and will go on in a moment; see Dispatcher, and `hand_out`.
        send: called when items that have started together have made their calls; see Dispatcher.
        straight: does without tasks what needs none; None = every item has a task.

    Attributes:
        moves: items that have started or ended so far; the watchdog wants it to grow.
        look_at: how many moves make it worth while to look whether there is room; infinite while nobody waits for it.
        hand_out: hands out free slots; to be called, by the loop, when answers to calls have come.
    """

    def __init__(
        self,
        work: Work,
        limits: Limits,
        lanes: tuple[str, ...],
        on_crash: Callable[[BaseException], None],
        keep_answer: Callable[[Position], None] = lambda _position: None,
        drop_answer: Callable[[Position], None] = lambda _position: None,
        replayed: Callable[[Item], None] = lambda _item: None,
        prepare: Callable[[Sequence[Item]], None] = lambda _items: None,
        arrived: Callable[[], int] = lambda: 0,
        send: Callable[[], object] = lambda: None,
        straight: Straight | None = None,
    ) -> None:
        self.moves = 0
        self._work = work
        self._limits = limits
        self._on_crash = on_crash
        self._keep_answer = keep_answer
        self._drop_answer = drop_answer
        self._replayed = replayed
        self._straight = straight
        weights, begin = limits.tenant_weights, self._begin
        self._dispatcher = Dispatcher(
            self._run, limits.in_flight, lanes, on_crash, self._moved, weights, prepare, arrived, send, begin
        )
        if straight is not None:
            straight.follow(Way(self._ended, self._goes_on, self.crash))
        self.hand_out = self._dispatcher.hand_out
        self._ledgers: dict[TP, Ledger] = {}
        self._tenure = Tenure(-1)
        self._tenure.end()
        self._opened = asyncio.Event()
        self._room = asyncio.Event()
        self.look_at = math.inf
        self._held: dict[Item, None] = {}
        self._events = SharedLimit(limits.held_events, lanes)
        self._bytes = SharedLimit(limits.held_bytes, lanes)

    @property
    def tenure(self) -> Tenure:
        """Return the present right to work, or the last one."""
        return self._tenure

    @property
    def held(self) -> tuple[Item, ...]:
        """Return the unfinished items in order of intake."""
        return tuple(self._held)

    @property
    def holds(self) -> int:
        """Return the number of unfinished items."""
        return len(self._held)

    @property
    def started(self) -> list[Item]:
        """Return the unfinished items that have started; all others are queued, and may be twenty times as many."""
        return [item for item in self._dispatcher.running if item in self._held]

    def oldest(self, *, queued: bool = False) -> Item | None:
        """Return the unfinished item that was taken first, of all or of the queued ones."""
        return next((item for item in self._held if not queued or item.state is State.QUEUED), None)

    @property
    def is_open(self) -> bool:
        """Tell whether the books are loaded and items are taken."""
        return self._opened.is_set()

    def waits_behind(self, item: Item) -> bool:
        """Tell whether a queued item waits for an earlier one of its chain, rather than for a slot."""
        return self._dispatcher.waits_behind(item)

    @property
    def in_flight(self) -> int:
        """Return the number of items that have started, those of an earlier tenure whose call goes on included."""
        return self._dispatcher.in_flight

    def prepare(self, tenure: Tenure) -> None:
        """Note a new tenure; intake waits until `begin`."""
        self._tenure.end()
        self._tenure = tenure
        self._opened.clear()

    def begin(self, tenure: Tenure, ledgers: dict[TP, Ledger]) -> None:
        """Open the intake for these partitions, unless the tenure is over already."""
        if tenure is not self._tenure or tenure.is_over:
            return
        self._ledgers, self.look_at = ledgers, math.inf
        self._dispatcher.reopen()
        self._opened.set()
        self._room.set()

    def forget(self, tp: TP) -> Ledger | None:
        """Give up a partition's books and return them: nothing more of it is taken or committed in this tenure.

        What was taken goes on; its outcomes are not booked.
        """
        self._room.set()
        return self._ledgers.pop(tp, None)

    async def submit_all(self, items: Sequence[Item], generation: int) -> None:
        """Take items of one generation in their order, each as `submit` does."""
        is_open = False
        for item in items:
            # Between two waits nothing changes but how much is held.
            if is_open and self._limit_reached(item) is None:
                self._take(item)
            else:
                await self.submit(item, generation)
                is_open = self._opened.is_set() and not self._tenure.is_over and generation == self._tenure.generation

    async def submit(self, item: Item, generation: int) -> bool:
        """Take an item when there is room for it.

        Returns:
            False when its partition was given up meanwhile: the broker will deliver it again.
        """
        is_paused = False
        while True:
            tenure = self._tenure
            if tenure.is_over or generation != tenure.generation:
                return False
            # The end of a tenure sets both events, so that nobody waits for it.
            if not self._opened.is_set():
                await self._opened.wait()
                continue
            # Only while there is enough to go on with: what is held besides may rest for minutes.
            together = self._limits.together
            more = together if is_paused and self._dispatcher.ready(item.lane) >= together else 1
            limit = self._limit_reached(item, more)
            if limit is None:
                break
            _paused[limit,].set(1)
            is_paused = True
            if limit in _CROWDED:
                self._dispatcher.crowded.add(item.lane)
            self.look_at = min(self.look_at, self.moves + more)
            self._room.clear()
            await self._room.wait()
        if is_paused:
            self._dispatcher.crowded.discard(item.lane)
            for name in _LIMITS:
                _paused[name,].set(0)
        return self._take(item)

    def _limit_reached(self, item: Item, more: int = 1) -> str | None:
        limits, ledger, lane = self._limits, self._ledgers.get(item.tp), item.lane
        ready = self._dispatcher.ready(lane) + more - 1
        # Each tenant with something ready brings its own lookahead: the others' events lie behind its backlog.
        if ready >= limits.ready_keys and ready >= limits.ready_keys * self._dispatcher.ready_tenants(lane):
            return "ready_keys"
        if not self._events.admits(lane, more):
            return "held_events"
        if not self._bytes.admits(lane, item.size_bytes):
            return "held_bytes"
        return None if ledger is None else ledger.limit_reached(item.position.offset, limits.uncommitted)

    def _take(self, item: Item) -> bool:
        ledger = self._ledgers.get(item.tp)
        if ledger is None:
            return False
        position = item.position
        answer = ledger.already_answered(position.offset, position.timestamp_ms)
        log = ledger.take(position.offset, position.timestamp_ms)
        if log is None:
            return True
        item.log = log
        if item.identity is not None:
            item.first = ledger.repeats.meet(item.identity, position.offset, position.timestamp_ms)
            if item.first is not None:
                # It is neither called nor waited for, so it waits for nobody: the first one may still be at work.
                item.chain = None
        if answer is not None:
            ledger.finish(position.offset, answer, item.log)
            self._drop_answer(position)
            self._moved(1)
            REPLAYED.inc()
            return True
        if ledger.is_replay(position.offset):
            self._replayed(item)
        item.generation = self._tenure.generation
        item.taken_at = item.since = asyncio.get_running_loop().time()
        self._held[item] = None
        self._events.take(item.lane, 1)
        self._bytes.take(item.lane, item.size_bytes)
        self._dispatcher.add(item)
        return True

    def crash(self, error: BaseException) -> None:
        """End the worker: a record could not be taken, and nothing may be committed past it."""
        self._tenure.end()
        self._on_crash(error)

    def _moved(self, number: int) -> None:
        self.moves += number
        if self.moves >= self.look_at:
            self.look_at = math.inf
            self._room.set()

    def _begin(self, starts: Sequence[tuple[Item, Slot]]) -> Sequence[Run | None]:
        """Begin items without tasks."""
        tenure, straight = self._tenure, self._straight
        # What starts now was taken in this tenure, or waits behind the end of its own: all of it, or none.
        if straight is None or not tenure.may_work or {item.generation for item, _ in starts} != {tenure.generation}:
            return [None] * len(starts)
        return straight.begin(starts, tenure)

    def _ended(self, item: Item, slot: Slot, tenure: Tenure, result: ResultRef) -> None:
        """Book an item that ended without a task."""
        self._let_go(item)
        self._finish(item, tenure, result)
        self._dispatcher.ended(item, slot)

    def _goes_on(self, item: Item, slot: Slot, tenure: Tenure, rest: Callable[[], Awaitable[ResultRef | None]]) -> None:
        self._dispatcher.goes_on(item, slot, self._run(item, slot, tenure, rest))

    async def _run(
        self,
        item: Item,
        slot: Slot,
        began: Tenure | None = None,
        rest: Callable[[], Awaitable[ResultRef | None]] | None = None,
    ) -> None:
        """Do the work on an item, or the rest of it, in the tenure in which it began."""
        tenure = began or self._tenure
        try:
            if rest is not None:
                result = await rest()
            else:
                if item.generation != tenure.generation or not tenure.may_work:
                    await tenure.permission(item.generation)
                result = await self._work(item, slot, tenure)
        except TenureLostError:
            # An item whose call went on was noted at the end of its tenure; the event may be in other hands since.
            if item in self._dispatcher.running:
                self._keep_answer(item.position)
            return
        except asyncio.CancelledError:
            self._keep_answer(item.position)
            task = asyncio.current_task()
            if not tenure.is_over and task is not None and not task.cancelling():
                # Some library has cancelled it: the event would neither end nor be tried again, and nobody would know.
                message = f"the work on {item.position} was cancelled by nobody"
                raise RuntimeError(message) from None
            raise
        finally:
            self._let_go(item)
        self._finish(item, tenure, result)

    def _finish(self, item: Item, tenure: Tenure, result: ResultRef | None) -> None:
        if tenure is self._tenure and item.tp in self._ledgers:
            self._ledgers[item.tp].finish(item.position.offset, result, item.log)

    def _let_go(self, item: Item) -> None:
        if item in self._held:
            del self._held[item]
            self._events.take(item.lane, -1)
            self._bytes.take(item.lane, -item.size_bytes)
            self._moved(1)

    @property
    def wants_answers(self) -> bool:
        """Tell whether a partition waits for answers to be looked for; see Ledger.wants_answers."""
        return any(ledger.wants_answers for ledger in self._ledgers.values())

    def gauge(self) -> None:
        """Set the gauges; from time to time, not at every event, which would cost more than the rest of the books."""
        FM_QUEUE_DEPTH.set(self._dispatcher.queued)
        HELD_EVENTS.set(len(self._held))
        HELD_BYTES.set(self._bytes.held)
        ANSWERS.set(sum(len(ledger.answered) for ledger in self._ledgers.values()))
        REMEMBERED.set(sum(len(ledger.repeats) for ledger in self._ledgers.values()))

    def commits(self) -> dict[TP, tuple[int, dict[str, int]]]:
        """Return, per partition, the commit point and the mark that goes with it."""
        advance_idle(self._ledgers)
        return {tp: (ledger.commit_point, ledger.mark()) for tp, ledger in self._ledgers.items()}

    def pass_gaps(self, read_to: Mapping[TP, tuple[int | None, int]]) -> None:
        """Move on over offsets without records; see Ledger.pass_gap."""
        for tp, ledger in self._ledgers.items():
            if tp in read_to:
                ledger.pass_gap(*read_to[tp])

    def idle(self) -> dict[TP, tuple[Ledger, int]]:
        """Return the books of idle partitions, and how much they had taken: for `follow`."""
        return {tp: (ledger, ledger.taken) for tp, ledger in self._ledgers.items() if ledger.is_idle}

    def follow(self, idle: Mapping[TP, tuple[Ledger, int]], ends: Mapping[tuple[str, int], int]) -> None:
        """Note the ends of result partitions, for those that have taken nothing since `idle` was asked."""
        for tp, (ledger, taken) in idle.items():
            if self._ledgers.get(tp) is ledger and ledger.is_idle and ledger.taken == taken:
                for topic, end in ledger.result_ends.items():
                    ledger.result_ends[topic] = max(end, ends.get(TP(topic, tp.partition), 0))

    def spans(self) -> dict[TP, tuple[int, int]]:
        """Return, per partition, the commit point and the number of unfinished offsets."""
        return {tp: (ledger.commit_point, ledger.unfinished) for tp, ledger in self._ledgers.items()}

    async def drain(self, timeout_s: float) -> None:
        """Stop intake, drop what has not started, let what has started finish within a bound.

        The caller commits afterwards and then calls `close`.
        """
        self._opened.clear()
        self._room.set()
        PAUSED.labels("handover").set(1)
        for item in self._dispatcher.forget_waiting():
            self._let_go(item)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while self._dispatcher.running and loop.time() < end and self._tenure.may_work:
            resting = [task for item, task in self._dispatcher.tasks.items() if item.state is State.RESTING]
            for task in resting:
                task.cancel()
            if resting:
                await asyncio.wait(resting, timeout=max(0.0, end - loop.time()))
            tasks, limit_s = list(self._dispatcher.tasks.values()), min(_DRAIN_POLL_S, max(0.0, end - loop.time()))
            if tasks:
                await asyncio.wait(tasks, timeout=limit_s)
            elif self._dispatcher.running:
                # What ends without a task makes room. Nobody else waits for that: nothing is taken any more.
                self.look_at = 0
                self._room.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limit_s):
                        await self._room.wait()

    async def close(self) -> None:
        """End the tenure: what still runs is cut, but for calls that are being paid for.

        These go on, and their answers are kept for the redelivery.
        """
        self._tenure.end()
        self._opened.set()
        self._room.set()
        for item in (*self._dispatcher.detach_calls(), *self._dispatcher.cut()):
            self._keep_answer(item.position)
            self._let_go(item)
        tasks = list(self._dispatcher.tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for item in self.held:
            # A task that was cut before its first step has let nothing go. The call may have been made without it.
            self._keep_answer(item.position)
            self._let_go(item)
        self._ledgers = {}
        self._opened.clear()
        for reason in (*_LIMITS, "handover"):
            PAUSED.labels(reason).set(0)
