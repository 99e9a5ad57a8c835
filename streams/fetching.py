"""Faust's consumer and its thread, with what Faust and aiokafka hard-wire put right; part of streams/shell.py.

Verified, like that file, against its TESTED_VERSIONS; a test touches every name.

    thread._create_worker_consumer   overridden: Faust reads aborted records of transactional producers, too
    thread._fetch_records            overridden: notes how far the consumer has read past offsets without a record
    thread._seek_wait                overridden: a place that was told to be read from is no log that has lost its end
    thread.on_partitions_assigned    overridden: ends a fetch that began under an earlier assignment
    _coordinator._do_rejoin_group    wrapped: a static member asks first whether a twin has taken its place
    _coordinator._push_error_to_user wrapped: a refused join waits for a reader who does not read before it has joined
    _coordinator._heartbeat_task, ._commit_refresh_task  their errors are no refused join
    _coordinator._send_req           wrapped: an answer that refuses the whole question for commits is not "no commits"
    _coordinator.coordinator_dead    has it looked for again
    _coordinator._coordination_task  watched: nobody else does while nothing is read
    fetcher.MemoryRecords, .PartitionRecords, .FetchResult  replaced by those of streams/unpacking.py: a header name
                                     that is not UTF-8 would end the worker for ever; a fetch is unpacked in pieces
    fetcher._proc_fetch_request, ._update_fetch_positions  wrapped: aiokafka begins a log again that ends before the
                                     place where it reads on; it looks at the last record again before
    fetcher._invalidate_preferred_read_replica_for_node  wrapped: called for each fetch that failed
    fetcher._get_actions_per_node    wrapped: empty partitions are asked without a long wait while others have records
    fetcher._fetch_task, ._pending_tasks  ended before aiokafka ends them, and raises what it has cancelled
    fetcher._fetch_waiters, ._notify a fetch that waits looks again when a partition has room once more
    Consumer._wait_next_records      overridden: what one fetch brought of a partition goes through Faust in bundles;
                                     and Faust sleeps 1 s there when its buffers have paused every partition
    Consumer.on_buffer_drop          overridden: tells that a paused partition has room again
    Consumer._to_message, ._add_gap  overridden: a bundle is one message to Faust; its gaps are our ledger's business
    Consumer._read_offset            read: what a bundle holds below it has been handed out already
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from aiokafka.consumer import fetcher
from aiokafka.errors import GroupLoadInProgressError, KafkaError, for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types.tuples import ConsumerMessage

from contracts.logs import logger
from streams.engine.item import TP
from streams.unpacking import EndWatch, KeptRecords, PiecewiseFetchResult, TolerantPartitionRecords

# How often positions are noted under load; each empty fetch notes them as well.
_NOTE_INTERVAL_S = 0.5
_JOIN_PAUSE_S = 1.0
# Faust's way of a message to its agent costs some 60 us, that of a bundle of 32 the same; more would wait for less.
BUNDLE_RECORDS = 32
# Between two looks at a log that seems to have lost its end.
_LOOK_AGAIN_S = 0.2
# At 1,024 calls of 200 ms this is an eighth of what the buffer holds; 20 empty answers a second cost next to nothing.
_HURRIED_MS = 50


class JoinGuard(Protocol):
    """Asked on the consumer's thread, before it joins the group under an instance id."""

    async def before_join(self, member_ids: frozenset[str], *, is_unsure: bool) -> None:
        """Return when the place in the group is free or ours; never when it is not.

        Args:
            member_ids: the ones the group gave to us so far.
            is_unsure: a join of ours went unanswered, so an unknown member may be ourselves.
        """
        ...


class EngineThread(AIOKafkaConsumerThread):
    """The consumer thread of the engine.

    Attributes:
        guard: set where the worker is a static member.
        read_to: per partition, the last record handed out (None = none in this assignment) and where reading goes on.
    """

    guard: JoinGuard | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.read_to: dict[TP, tuple[int | None, int]] = {}
        self._ends = EndWatch(self._went_back)
        self._assignment: Any = None
        self._noted_s = 0.0
        self._fetch: asyncio.Future[Any] | None = None

    def _create_worker_consumer(self, transport: Any) -> Any:
        _mend_fetcher()
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        """Put the guard before the first join: nothing is subscribed to yet."""
        await super().on_start()
        if self._consumer is None:
            return
        hurry(self._consumer._fetcher)  # noqa: SLF001
        self._look_back(self._consumer._fetcher)  # noqa: SLF001
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if self.guard is not None:
            guard_joins(coordinator, self.guard)
        keep_joining(coordinator)
        hear_refusals(coordinator)
        coordinator._coordination_task.add_done_callback(self._coordination_ended)  # noqa: SLF001

    def _coordination_ended(self, task: "asyncio.Task[None]") -> None:
        """End the worker with the task that keeps it in the group."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        fetch = self._fetch = asyncio.ensure_future(super()._fetch_records(consumer, *args, **kwargs))
        await asyncio.wait([fetch])
        if fetch.cancelled():
            return {}
        subscription = consumer._subscription.subscription  # noqa: SLF001
        records = self._ends_of(subscription.assignment if subscription is not None else None).take(fetch.result())
        self._note(records)
        return records

    def _ends_of(self, assignment: Any) -> EndWatch:
        if assignment is not None and assignment is not self._assignment:
            self._assignment, self._ends = assignment, EndWatch(self._went_back)
        return self._ends

    async def _seek_wait(self, consumer: Any, partitions: Mapping[Any, int]) -> None:
        for tp in partitions:
            self._ends.moved(tp)
        await super()._seek_wait(consumer, partitions)

    def _went_back(self, tp: Any) -> None:
        self.parent_loop.call_soon_threadsafe(cast("BundlingConsumer", self.consumer).went_back, tp)

    def _look_back(self, fetching: Any) -> None:
        """Have an `EndWatch` look when aiokafka goes to the beginning of a log, or its broker is away."""
        fetch, reset = fetching._proc_fetch_request, fetching._update_fetch_positions  # noqa: SLF001
        failed: Callable[[int, Any], None] = fetching._invalidate_preferred_read_replica_for_node  # noqa: SLF001
        in_vain: list[Any] = []

        def note(node_id: int, request: Any) -> None:
            failed(node_id, request)
            in_vain.append(request)

        async def fetch_and_note(assignment: Any, node_id: int, request: Any) -> Any:
            found = await fetch(assignment, node_id, request)
            has_failed = request in in_vain
            if assignment.active:
                ends = self._ends_of(assignment)
                (ends.after_failure if has_failed else ends.after_fetch)(assignment, request.topics)
            if has_failed:
                in_vain.remove(request)
            return found

        async def reset_and_look(assignment: Any, node_id: int, tps: Sequence[Any]) -> Any:
            found = await reset(assignment, node_id, tps)
            if assignment.active:
                ends = self._ends_of(assignment)
                if sum(ends.after_reset(tp, assignment.state_value(tp)) for tp in tps):
                    await asyncio.sleep(_LOOK_AGAIN_S)
            return found

        fetching._invalidate_preferred_read_replica_for_node = note  # noqa: SLF001
        fetching._proc_fetch_request, fetching._update_fetch_positions = fetch_and_note, reset_and_look  # noqa: SLF001

    async def on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        """End the fetch that Faust has given up: it would take the assignment's first records, for nobody."""
        if self._fetch is not None:
            self._fetch.cancel()
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_thread_stop(self) -> None:
        """Leave the group and close the connections."""
        await self.end_fetches()
        await super().on_thread_stop()

    async def end_fetches(self) -> None:
        """End what is being fetched: aiokafka would, and raise what it has cancelled; the thread would end there."""
        fetching: Any = getattr(self._consumer, "_fetcher", None)
        if fetching is None:
            return
        tasks = {fetching._fetch_task, *fetching._pending_tasks}  # noqa: SLF001
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        fetching._pending_tasks.clear()  # noqa: SLF001

    def look_again(self) -> None:
        """Have a fetch that waits look again: a partition that was paused has room.

        aiokafka waits for news of the broker, for as long as Faust lets it (1 s); what it holds already is none.
        """
        self.thread_loop.call_soon_threadsafe(self._notify_fetch)

    def _notify_fetch(self) -> None:
        fetching: Any = getattr(self._consumer, "_fetcher", None)
        for waiter in tuple(fetching._fetch_waiters) if fetching is not None else ():  # noqa: SLF001
            fetching._notify(waiter)  # noqa: SLF001

    def _note(self, records: Any) -> None:
        """Note positions together with the last record handed out, so that nobody takes what is under way for a gap."""
        assignment, now_s = self._assignment, time.monotonic()
        if assignment is None or (records and now_s < self._noted_s + _NOTE_INTERVAL_S):
            return
        self._noted_s = now_s
        newest = self._ends.newest
        states = ((tp, assignment.state_value(tp)) for tp in assignment.tps)
        self.read_to = {
            TP(tp.topic, tp.partition): (newest[tp][0] if tp in newest else None, state.position)
            for tp, state in states
            if state is not None and state.has_valid_position and tp not in self._ends.cut
        }


class Bundle(ConsumerMessage):
    """Records of one partition in order, which Faust carries to the agent as one message.

    Attributes:
        records: aiokafka's, at least one; the message's own offset is that of the last.
        generation: of the group, when they were fetched.
    """

    __slots__ = ("generation", "records")

    def __init__(self, tp: Any, records: Sequence[Any], generation_id: int) -> None:
        last = records[-1]
        super().__init__(
            tp.topic, tp.partition, last.offset, last.timestamp, 0, None, None, b"", None, tp=tp,
            generation_id=generation_id,
        )  # fmt: skip
        self.records = records
        self.generation = generation_id


class BundlingConsumer(Consumer):
    """Hands records to their agents in bundles.

    A consumer's whole life of a message (its event, its queue, its sensors, a turn of the loop) is paid per bundle.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._has_room = asyncio.Event()
        self._is_fetching = False

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        active = self._get_active_partitions()
        if self.flow_active and not active:
            self._has_room.clear()
            await self.wait(self._has_room.wait(), timeout=timeout)
            return {}, active
        self._is_fetching = True
        records, fetched_from = await super()._wait_next_records(timeout)
        self._is_fetching = False
        return records and self.bundled(records), fetched_from

    def on_buffer_drop(self, tp: Any) -> None:
        """Hand records of the partition out again; a fetch that waits for news meanwhile need not bring any."""
        super().on_buffer_drop(tp)
        self._has_room.set()
        if self._is_fetching:
            self._is_fetching = False
            cast("EngineThread", self._thread).look_again()

    @staticmethod
    def bundled(records: Mapping[Any, Sequence[Any]]) -> dict[Any, list[Sequence[Any]]]:
        """Cut what was fetched into bundles, so that Faust's scheduler gives every partition its turn."""
        return {
            tp: [found[start : start + BUNDLE_RECORDS] for start in range(0, len(found), BUNDLE_RECORDS)]
            for tp, found in records.items()
        }

    def went_back(self, tp: Any) -> None:
        """Take note that a log has lost its end; nothing more of it is handed out in this assignment."""

    def _to_message(self, tp: Any, record: Sequence[Any]) -> Bundle:
        """Make a message of a bundle; Faust drops it when its last record was handed out already."""
        read_to = self._read_offset[tp]
        if read_to is not None and record[0].offset < read_to <= record[-1].offset:
            record = [one for one in record if one.offset >= read_to]
        return Bundle(tp, record, self.app.consumer_generation_id)

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Keep no account of offsets without a record: Faust would for its own commits, and has none."""


def guard_joins(coordinator: Any, guard: JoinGuard) -> None:
    """Have a static member look before it joins.

    aiokafka takes being thrown out by a twin for a lost session, and would throw the twin out in turn, for ever.
    """
    original: Callable[[Any], Awaitable[bool]] = coordinator._do_rejoin_group  # noqa: SLF001
    ours: set[str] = set()
    is_unsure = False

    async def rejoin(subscription: Any) -> bool:
        nonlocal is_unsure
        if not coordinator.member_id:
            await guard.before_join(frozenset(ours), is_unsure=is_unsure)
            is_unsure = True
        try:
            is_joined = await original(subscription)
        except KafkaError:
            # FENCED_INSTANCE_ID, which this version of aiokafka has no name for: a twin joined during a rebalance.
            await guard.before_join(frozenset(ours), is_unsure=is_unsure)
            raise
        if coordinator.member_id:
            ours.add(coordinator.member_id)
            is_unsure = False
        return is_joined

    coordinator._do_rejoin_group = rejoin  # noqa: SLF001


def keep_joining(coordinator: Any) -> None:
    """Try again when the group refuses a join.

    aiokafka hands the error to whoever reads next, and waits for that. Faust reads nothing until it has joined: one
    answer that aiokafka does not know (REBALANCE_IN_PROGRESS after a replication timeout, a permission that comes
    late) would end in a silent hang.
    """
    original: Callable[[Exception], Awaitable[Any]] = coordinator._push_error_to_user  # noqa: SLF001
    log = logger("worker")

    async def refused(error: Exception) -> Any:
        tasks = (coordinator._heartbeat_task, coordinator._commit_refresh_task)  # noqa: SLF001
        if any(task and task.done() and not task.cancelled() and task.exception() is error for task in tasks):
            return await original(error)
        log.warning("group.refused", error=repr(error), wait_s=_JOIN_PAUSE_S)
        return await asyncio.wait([coordinator._closing], timeout=_JOIN_PAUSE_S)  # noqa: SLF001

    coordinator._push_error_to_user = refused  # noqa: SLF001


def hear_refusals(coordinator: Any) -> None:
    """Raise what a broker answers to the question for commits when it refuses the whole of it.

    aiokafka looks at the errors of the partitions only, and such an answer has none. It would take it for "nothing was
    ever committed", and everything on the log would be called again: a broker that was just started answers so until
    it has loaded the group.
    """
    original: Callable[[Any], Awaitable[Any]] = coordinator._send_req  # noqa: SLF001

    async def send(request: Any) -> Any:
        response = await original(request)
        code = getattr(response, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if not code:
            return response
        error = for_code(code)()
        if error.retriable and not isinstance(error, GroupLoadInProgressError):
            coordinator.coordinator_dead()
        raise error

    coordinator._send_req = send  # noqa: SLF001


def hurry(fetching: Any) -> None:
    """Ask empty partitions without a long wait while records of others have not been handed out yet.

    aiokafka has one fetch under way per broker. One that waits for partitions at their end (Faust lets it wait 1.5 s)
    would keep the others from being read when they have handed out what they had.
    """
    original: Callable[[Any], Any] = fetching._get_actions_per_node  # noqa: SLF001
    patient_ms: int = fetching._fetch_max_wait_ms  # noqa: SLF001

    def actions(assignment: Any) -> Any:
        fetching._fetch_max_wait_ms = _HURRIED_MS if fetching._records else patient_ms  # noqa: SLF001
        return original(assignment)

    fetching._get_actions_per_node = actions  # noqa: SLF001


def _mend_fetcher() -> None:
    """Put our parsers in place, for the whole process."""
    fetcher.MemoryRecords = KeptRecords
    fetcher.PartitionRecords = TolerantPartitionRecords
    fetcher.FetchResult = PiecewiseFetchResult


__all__ = [
    "BUNDLE_RECORDS",
    "Bundle",
    "BundlingConsumer",
    "EngineThread",
    "JoinGuard",
    "guard_joins",
    "hear_refusals",
    "keep_joining",
]
