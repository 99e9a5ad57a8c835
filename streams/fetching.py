"""Faust's consumer and its thread, with what Faust and aiokafka hard-wire put right; part of streams/shell.py.

Verified, like that file, against its TESTED_VERSIONS; a test touches every name.

    thread._create_worker_consumer   overridden: Faust reads aborted records of transactional producers, too
    thread._fetch_records            overridden: notes how far the consumer has read past offsets without a record
    thread._seek_wait                overridden: a place that was told to be read from is no log that has lost its end
    thread.on_partitions_assigned    overridden: ends a fetch that began under an earlier assignment
    _coordinator._coordination_task  watched: nobody else does while nothing is read
    _client._sync_task               watched: without it nobody finds the group's coordinator again
    fetcher.MemoryRecords, .PartitionRecords, .FetchResult  replaced by those of streams/unpacking.py: a header name
                                     that is not UTF-8 would end the worker for ever; a fetch is unpacked in pieces
    fetcher._proc_fetch_request, ._update_fetch_positions  wrapped: aiokafka begins a log again that ends before the
                                     place where it reads on; it looks at the last record again before
    fetcher._invalidate_preferred_read_replica_for_node  wrapped: called for each fetch that failed
    fetcher._get_actions_per_node    wrapped: empty partitions are asked without a long wait while others have records
    fetcher._fetch_task              watched: who waits for records does not hear that nobody fetches any more
    fetcher._fetch_task, ._pending_tasks  ended before aiokafka ends them, and raises what it has cancelled
    fetcher._fetch_waiters, ._notify a fetch that waits looks again when a partition has room once more
    Consumer._wait_next_records      overridden: what one fetch brought of a partition goes through Faust in bundles;
                                     and Faust sleeps 1 s there when its buffers have paused every partition
    Consumer.on_buffer_drop          overridden: tells that a paused partition has room again
    Consumer._to_message, ._add_gap  overridden: a bundle is one message to Faust; its gaps are our ledger's business
    Consumer._read_offset            read: what a bundle holds below it has been handed out already
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from aiokafka.consumer import fetcher
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types.tuples import ConsumerMessage

from contracts.logs import logger
from streams.connections import hear_lost_connections, mend_connections
from streams.engine.item import TP
from streams.epochs import epoch_ends
from streams.frames import mend_frames
from streams.joining import JoinGuard, date_assignments, guard_joins, hear_refusals, keep_joining, leave_for_good
from streams.log_ends import EndWatch, Run, is_read_again
from streams.unpacking import KeptRecords, PiecewiseFetchResult, TolerantPartitionRecords

# How often positions are noted under load; each empty fetch notes them as well.
_NOTE_INTERVAL_S = 0.5
# Faust's way of a message to its agent costs some 60 us, that of a bundle of 32 the same; more would wait for less.
BUNDLE_RECORDS = 32
# Between two looks at a log that seems to have lost its end.
_LOOK_AGAIN_S = 0.2
# A leader has so long to tell where an epoch ends: what was fetched of others waits for it. A fetch from it may come
# before, which waits 1.5 s for records.
_ANSWER_S = 10.0
# The same where nothing was fetched yet, and it is asked again in a moment.
_MISSED_S = 1.0
# At 1,024 calls of 200 ms this is three eighths of what Faust's buffer holds, behind which lies the engine's lookahead.
# With 50 ms the consumer's thread used a half more, 3 % of a worker's CPU. What an answer costs: streams/frames.py.
_HURRIED_MS = 150
# A broker that has nothing waits for records; what brings nothing sooner was refused, and is asked for a little later.
_AT_ONCE_S, _REFUSED_S = 0.025, 0.1


class EngineThread(AIOKafkaConsumerThread):
    """The consumer thread of the engine.

    Attributes:
        guard: set where the worker is a static member.
        read_to: per partition, the last record handed out (None = none in this assignment) and where reading goes on.
        runs: per partition, the epochs of the leaders that wrote what was handed out.
        read_before: per partition, what was read before this assignment: the offset behind it, and its epoch.
        rack: where the worker runs, for brokers that send its consumer to a replica there.
    """

    guard: JoinGuard | None = None
    rack: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.forget_read()
        self._ends = EndWatch(self._went_back)
        self._assignment: Any = None
        self._noted_s = 0.0
        self._fetch: asyncio.Future[Any] | None = None

    def forget_read(self) -> None:
        """Forget what was read: what an earlier assignment read may be of another log."""
        self.read_to: dict[TP, tuple[int | None, int]] = {}
        self.runs: dict[TP, tuple[Run, ...]] = {}
        self.read_before: Mapping[TP, tuple[int, int]] = {}

    def _create_worker_consumer(self, transport: Any) -> Any:
        _mend_fetcher()
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level, consumer._client_rack = "read_committed", self.rack  # noqa: SLF001
        return consumer

    async def on_start(self) -> None:
        """Put the guard before the first join: nothing is subscribed to yet."""
        await super().on_start()
        if self._consumer is None:
            return
        client = self._consumer._client  # noqa: SLF001
        hear_lost_connections(client)
        hurry(self._consumer._fetcher)  # noqa: SLF001
        self._look_back(self._consumer._fetcher)  # noqa: SLF001
        coordinator = self._consumer._coordinator  # noqa: SLF001
        if self.guard is not None:
            guard_joins(coordinator, self.guard)
        keep_joining(coordinator)
        hear_refusals(coordinator)
        date_assignments(coordinator)
        leave_for_good(coordinator)
        fetching = self._consumer._fetcher._fetch_task  # noqa: SLF001
        for task in (coordinator._coordination_task, fetching, client._sync_task):  # noqa: SLF001
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        """End the worker with the task that keeps it in the group, fetches, or knows where the brokers are."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            asyncio.run_coroutine_threadsafe(self.app.crash(error), self.parent_loop)

    async def _fetch_records(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        fetch = self._fetch = asyncio.ensure_future(self._fetch_and_look(consumer, *args, **kwargs))
        await asyncio.wait([fetch])
        return {} if fetch.cancelled() else fetch.result()

    async def _fetch_and_look(self, consumer: Any, *args: Any, **kwargs: Any) -> Any:
        await self._look_for_missed(consumer, self._ends_now(consumer))
        fetched = await super()._fetch_records(consumer, *args, **kwargs)
        ends = self._ends_now(consumer)
        if doubted := ends.doubted(fetched, self.read_before):
            fetched = await self._ask_for_epochs(consumer, ends, fetched, doubted)
        records = ends.take(fetched)
        self._note(records)
        return records

    def _ends_now(self, consumer: Any) -> EndWatch:
        subscription = consumer._subscription.subscription  # noqa: SLF001
        return self._ends_of(subscription.assignment if subscription is not None else None)

    async def _look_for_missed(self, consumer: Any, ends: EndWatch) -> None:
        """Find logs that end just in front of the last record; before anything is fetched that would have to wait."""
        if missed := ends.missed():
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_MISSED_S):
                    kept = await epoch_ends(consumer._client, {tp: epoch for tp, (_, epoch) in missed.items()})  # noqa: SLF001
                for tp in (tp for tp, (read_to, _) in missed.items() if kept.get(tp, read_to) < read_to):
                    ends.found_missing(tp)

    async def _ask_for_epochs(
        self, consumer: Any, ends: EndWatch, fetched: Mapping[Any, Any], doubted: Mapping[Any, tuple[int, int]]
    ) -> dict[Any, Any]:
        """Find logs that were cut; return what may be handed out, the rest is fetched again.

        Not asked again here: a leader that stays away would keep the records of all others back.
        """
        assignment = self._assignment
        try:
            async with asyncio.timeout(_ANSWER_S):
                kept = await epoch_ends(consumer._client, {tp: epoch for tp, (_, epoch) in doubted.items()})  # noqa: SLF001
        except (KafkaError, TimeoutError) as error:
            kept = {}
            if isinstance(error, TimeoutError) or error.retriable:
                for tp in doubted:
                    ends.read_again(tp, assignment.state_value(tp), fetched[tp][0].offset)
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                logger("worker").warning("epochs.unknown", error=repr(error))
        for tp in (tp for tp, (read_to, _) in doubted.items() if kept.get(tp, read_to) < read_to):
            ends.found_short(tp, assignment.state_value(tp), fetched[tp][0].offset)
        # Also where a fetch has failed meanwhile, and the last record is looked at again.
        states = {tp: assignment.state_value(tp) for tp in fetched}
        return {tp: found for tp, found in fetched.items() if not is_read_again(states[tp], found[0].offset)}

    def _ends_of(self, assignment: Any) -> EndWatch:
        if assignment is not None and assignment is not self._assignment:
            self._assignment, self._ends = assignment, EndWatch(self._went_back)
        return self._ends

    async def _seek_wait(self, consumer: Any, partitions: Mapping[Any, int]) -> None:
        for tp in partitions:
            self._ends.sought(tp)
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
            since_s = time.monotonic()
            try:
                found = await fetch(assignment, node_id, request)
            finally:
                # Also when it is cut off in its pause behind a failure.
                if has_failed := request in in_vain:
                    in_vain.remove(request)
            if assignment.active:
                ends = self._ends_of(assignment)
                (ends.after_failure if has_failed else ends.after_fetch)(assignment, request.topics)
                if not found and time.monotonic() < since_s + _AT_ONCE_S:
                    # aiokafka would ask again at once, a thousand times a second and for ever where a disk is damaged.
                    await asyncio.sleep(_REFUSED_S)
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
        self.runs = {TP(tp.topic, tp.partition): runs for tp, runs in self._ends.runs.items()}


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
    mend_frames()
    mend_connections()


__all__ = ["BUNDLE_RECORDS", "Bundle", "BundlingConsumer", "EngineThread"]
