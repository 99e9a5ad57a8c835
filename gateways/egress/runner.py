"""Runs one door: from its topics through its queue to its destination, and settles every verdict.

An item is finished, and so committed, only when it is delivered, or safe on another topic. See: docs/egress.md.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import EGRESS_BREAKERS, EGRESS_HELD, EGRESS_INFLIGHT, EGRESS_OLDEST, EGRESS_RESTARTS
from contracts.settings import RouteSettings
from contracts.settings.egress import DoorSection, EgressProcess
from contracts.topics import DELIVERY_TIERS, Topics
from gateways.egress.base import Door, Item
from gateways.egress.delivering import Delivery
from gateways.egress.group import group_config
from gateways.egress.intake import MAX_SPAN, Intake
from gateways.egress.ledger import Entry, Ledger, UnitId
from gateways.egress.queue import Lane, Queue
from gateways.egress.reading import LogIds, in_thread, other_logs
from gateways.egress.selecting import Raw, Selector
from gateways.egress.settling import Produce, Settler

_RESTART_BASE_S = 1.0
_RESTART_MAX_S = 30.0
# Between two questions to brokers that did not answer the first one.
_ASK_AGAIN_S = 2.0

Answer = TypeVar("Answer")

_log = logger("egress")


@dataclass(frozen=True)
class Surroundings:
    """What the doors of a process share.

    Attributes:
        consumer: connection settings of a Kafka consumer.
        app_id: first part of the groups' names, and whose records on the delay topics are the doors'.
        result_topics: every topic with terminal records.
        produce: returns when the broker has confirmed a record.
        has_topic_ids: whether the brokers know ids of topics; the embedded one does not.
        nearby: settings of a consumer that need not read from leaders.
        clock: Unix seconds; records of delay topics are due by it.
    """

    consumer: dict[str, Any]
    app_id: str
    topics: Topics
    result_topics: Sequence[str]
    routes: Sequence[RouteSettings]
    produce: Produce
    process: EgressProcess
    clock: Callable[[], float] = time.time
    has_topic_ids: bool = True
    nearby: Mapping[str, str] = field(default_factory=dict)


class DoorRunner:
    """One door.

    Args:
        name: of its section.
        door: started and closed here.
        settings: its section.
        around: what the doors share.
    """

    def __init__(self, name: str, door: Door, settings: DoorSection, around: Surroundings) -> None:
        self.name = name
        self._door = door
        self._settings = settings
        self._around = around
        self._selector = Selector(name, settings, around.routes, around.app_id)
        settler = Settler(name, around.topics, around.produce, around.app_id)
        self._delivery = Delivery(name, door, settings, settler)
        self._queue = Queue(door.shape, door.splits, settings, time.monotonic)
        self._log_ids = LogIds(around.consumer, ()) if door.shape.is_exact and around.has_topic_ids else None
        self._is_warned = False
        self._tasks: dict[asyncio.Task[None], Sequence[Entry]] = {}
        self._held = 0
        self._held_bytes = 0
        self._is_full = False
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._fault: BaseException | None = None
        self.intake: Intake | None = None

    @property
    def is_reachable(self) -> bool:
        """Tell whether Kafka answers this door."""
        return self.intake is not None and self.intake.is_reachable

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop, then finish what is under way.

        A fault of ours or of Kafka's starts it again after a while: it never ends by itself and never touches others.
        """
        pause_s = _RESTART_BASE_S
        while not stop.is_set():
            begun_s = time.monotonic()
            try:
                await self._session(stop)
            except LogUnavailable as error:
                _log.warning("egress.log_unavailable", door=self.name, error=str(error))
            except Exception:  # noqa: BLE001 - the edge of this door: what ended it must not end the others
                _log.exception("egress.door_failed", door=self.name)
                EGRESS_RESTARTS.labels(self.name).inc()
            if time.monotonic() - begun_s > _RESTART_MAX_S:
                pause_s = _RESTART_BASE_S
            await _wait(stop, pause_s)
            pause_s = min(_RESTART_MAX_S, 2 * pause_s)

    async def _session(self, stop: asyncio.Event) -> None:
        around = self._around
        group = f"{around.app_id}.egress.{self.name}"
        waits_s = {around.topics.deliveries(tier): tier_s for tier, tier_s in DELIVERY_TIERS.items()}
        self._is_stopping, self._fault = False, None
        self.intake = Intake(
            self.name,
            group_config({**around.consumer, **around.nearby}, group, around.process, self._settings.timeout_s),
            around.result_topics,
            waits_s,
            receiver=self,
            clock=around.clock,
            watch=LogIds(around.consumer, (*around.result_topics, *waits_s)) if around.has_topic_ids else None,
        )
        try:
            await unless_stopped(stop, self.intake.open())
            while not stop.is_set():
                await self.intake.poll(is_full=self._is_full)
                if self._fault is not None:
                    # What it left comes again with a new session; in this one it would hold up its partition.
                    raise self._fault
                self._pump()
                self._relieve()
                self._measure()
        finally:
            self._is_stopping = True
            if self._timer is not None:
                self._timer.cancel()
            await self.let_go(set(self.intake.ledgers))
            await self.intake.aclose()

    # What the intake hands over.

    def take_result(self, ledger: Ledger, raw: Raw) -> None:
        """Queue an item of a result topic, when it is this door's."""
        item = self._selector.from_results(raw)
        self._take(ledger, raw, item if item is not None and self._door.takes(item) else None, 0.0)

    def take_waiting(self, ledger: Ledger, raw: Raw) -> None:
        """Queue an item of a delay topic, for its next attempt."""
        found = self._selector.from_waiting(raw)
        item, first_at_s = (None, 0.0) if found is None else (found[0], found[1].first_at_ms / 1000)
        self._take(ledger, raw, item, first_at_s)

    def is_ours(self, raw: Raw) -> bool:
        """Tell whether a record of a delay topic is this door's."""
        return self._selector.is_ours(raw)

    async def let_go(self, ledgers: set[Ledger]) -> None:
        """Forget what waits of some partitions, and wait for what of them is under way, within the drain's limit."""
        for ledger in ledgers:
            ledger.is_given_up = True
        for entry in self._queue.drop(lambda entry: entry.ledger.is_given_up):
            self._forget(entry)
        involved = [task for task, entries in self._tasks.items() if any(one.ledger.is_given_up for one in entries)]
        if not involved:
            return
        _, late = await asyncio.wait(involved, timeout=self._around.process.drain_timeout_s)
        for task in late:
            task.cancel()
        if late:
            _log.warning("egress.deliveries_abandoned", door=self.name, count=len(late))
            await asyncio.wait(late)

    def _take(self, ledger: Ledger, raw: Raw, item: Item | None, first_at_s: float) -> None:
        if item is None:
            ledger.skip(raw.position.offset)
            return
        ledger.take(raw.position.offset, item.position.timestamp_ms)
        entry = Entry(item, ledger, raw.position.offset, first_at_s)
        entry.destination = self._door.destination(item)
        entry.unit_id = self._unit(entry)
        self._held += 1
        self._held_bytes += entry.size_bytes
        self._queue.add(entry)
        self._judge_fullness()

    def _unit(self, entry: Entry) -> UnitId:
        order, place = self._door.shape.order, entry.item.position
        if order == "partition":
            return (place.topic, place.partition)
        if order == "key" and entry.item.key is not None:
            return (place.topic, place.partition, entry.item.key)
        return (entry.ledger.topic, entry.ledger.partition, entry.offset)

    # Out.

    def _pump(self) -> None:
        """Start every delivery that may start now."""
        if self._is_stopping:
            return
        for lane, entry in self._queue.take_stranded(is_full=self._is_full):
            self._start(self._strand(lane, entry), [entry])
        while found := self._queue.next_batch(is_full=self._is_full):
            lane, batch = found
            # What is put off makes room for the intake, and none for deliveries.
            self._start(self._deliver(lane, batch), batch).add_done_callback(lambda _task: self._pump())
        if self._timer is not None:
            self._timer.cancel()
        # With all slots taken only the end of a delivery changes anything, and that calls here.
        has_slots = self._queue.in_flight < self._settings.max_in_flight
        if has_slots and (wake_at_s := self._queue.wake_at_s()) is not None:
            delay_s = max(0.001, wake_at_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._pump)

    def _relieve(self) -> None:
        """Put off what keeps others waiting in the log: in hand for long, where hand or partition takes no more."""
        if self.intake is None or not self._door.shape.many_destinations:
            return
        floors = {one: (one.next_offset or 0) - MAX_SPAN // 2 for one in self.intake.ledgers if one.span > MAX_SPAN}
        for lane, entry in self._queue.take_crowding(floors, is_full=self._is_full):
            self._start(self._strand(lane, entry), [entry])

    def _start(self, work: Any, entries: Sequence[Entry]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = entries
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._fault = fault
            if self._is_stopping:
                _log.error("egress.delivery_failed", door=self.name, exc_info=fault)

    async def _deliver(self, lane: Lane, batch: list[Entry]) -> None:
        again: dict[Entry, float] = {}
        settled: set[Entry] = set()
        try:
            if await self._are_logs_known(batch):
                again, settled = await self._delivery.deliver(lane.breaker, batch)
            else:
                again = dict.fromkeys(batch, _ASK_AGAIN_S)
        finally:
            kept = {entry: rest_s for entry, rest_s in again.items() if not entry.ledger.is_given_up}
            self._queue.done(lane, batch, kept)
            for entry in batch:
                if entry in settled:
                    entry.ledger.finish(entry.offset)
                if entry not in kept:
                    self._forget(entry)

    async def _are_logs_known(self, batch: Sequence[Entry]) -> bool:
        """Tell, for a door that must not repeat, whether what was read lies on the logs that the session began with.

        Without an answer nobody knows. A new session would not know more, and would cost the group a rebalance.

        Raises:
            LogUnavailable: a topic was made anew, and is to be read from its beginning.
        """
        read = {entry.ledger.topic: entry.ledger.log_id for entry in batch if entry.ledger.log_id}
        if self._log_ids is None or not read:
            return True
        try:
            now = await in_thread(None, self._log_ids.now, tuple(read))
        except LogUnavailable as error:
            if not self._is_warned:
                _log.warning("egress.log_unavailable", door=self.name, error=str(error))
            self._is_warned = True
            return False
        self._is_warned = False
        if anew := other_logs(read, now):
            message = f"made anew, and nothing of it is delivered by this session: {', '.join(sorted(anew))}"
            raise LogUnavailable(message)
        return True

    async def _strand(self, lane: Lane, entry: Entry) -> None:
        try:
            await self._delivery.strand(lane.breaker, entry)
            entry.ledger.finish(entry.offset)
        finally:
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        self._held -= 1
        self._held_bytes -= entry.size_bytes
        self._judge_fullness()

    def _judge_fullness(self) -> None:
        items, held_bytes = self._settings.max_held_items, self._settings.max_held_bytes
        # Fetching begins anew after a pause, so that it should not stop and go with every item.
        share = 0.5 if self._is_full else 1.0
        self._is_full = self._held >= share * items or self._held_bytes >= share * held_bytes

    def _measure(self) -> None:
        oldest_ms = [stamp for ledger in (self.intake.ledgers if self.intake else ()) if (stamp := ledger.oldest_ms)]
        EGRESS_OLDEST.labels(self.name).set(max(0.0, time.time() - min(oldest_ms) / 1000) if oldest_ms else 0.0)
        EGRESS_HELD.labels(self.name).set(self._held)
        EGRESS_INFLIGHT.labels(self.name).set(self._queue.in_flight)
        EGRESS_BREAKERS.labels(self.name).set(self._queue.open_breakers)


async def _wait(stop: asyncio.Event, limit_s: float) -> None:
    if not stop.is_set():
        waiting = asyncio.ensure_future(stop.wait())
        await asyncio.wait({waiting}, timeout=limit_s)
        waiting.cancel()


async def unless_stopped(stop: asyncio.Event, work: Awaitable[Answer]) -> Answer | None:
    """Return what some work brings; None when told to stop before, and then nobody waits for it any longer."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        stopping.cancel()
