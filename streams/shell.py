"""The one file that knows Faust's and aiokafka's private names: commit, generation, lease, hand-over.

Verified against the versions in TESTED_VERSIONS; `check_versions` refuses others, and a test touches every name.
What Faust must not be left to do, and why, is in docs/faust.md.

    thread._consumer                    aiokafka's consumer, lives on Faust's consumer thread
    thread.call_thread                  runs a coroutine there and awaits it here
    thread.thread_loop                  that thread's event loop
    _coordinator.generation             -1 once the group has expelled us
    _coordinator._do_heartbeat          wrapped, to know when the last good heartbeat was sent
    _coordinator.fetch_committed_offsets  offsets with metadata (confluent-kafka 2.16 corrupts it)
    _coordinator.request_rejoin         has the assignment begin anew
    Consumer._wait_next_records         overridden: nothing is read before it is known from where
    Consumer.seek_wait, app.rebalancing used there: Faust itself seeks to the commits while it is rebalancing
    Consumer.perform_seek               that seek, overridden: the end of one rebalance may hide that the next has begun
    Consumer.wait_empty                 overridden: Faust asks here to finish what has started
    Consumer.verify_event_path          overridden: it would complain that Faust itself commits nothing
    Consumer._new_consumer_thread       overridden: the thread of streams/fetching.py, which knows further names
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol, cast

import faust
import faust.types
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers.aiokafka import Consumer

from contracts.errors import ConfigError, LogUnavailable
from contracts.logs import logger
from contracts.metrics import COMMITS
from streams.engine.item import TP
from streams.epochs import epoch_ends
from streams.fetching import BundlingConsumer, EngineThread
from streams.joining import JoinGuard, boot_time_s
from streams.log_ends import Reach, Run, reach

TESTED_VERSIONS = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}

# Work stops this share of the session after the last good heartbeat: the group may have a new owner after all of it.
LEASE_SHARE_OF_SESSION = 0.9
_REBALANCE_POLL_S = 0.05


class Listener(Protocol):
    """Who is told about partitions."""

    def coming(self, generation: int) -> None:
        """Partitions of this generation are about to be delivered; called before the first record can arrive."""
        ...

    def assigned(self, tps: frozenset[TP], generation: int) -> None:
        """Partitions are ours; must return at once, because no heartbeat is sent meanwhile."""
        ...

    def went_back(self, tp: TP) -> None:
        """The log of a partition has lost its end; nothing more of it comes in this assignment."""
        ...

    async def hand_over(self) -> None:
        """Partitions are being given up, or the worker stops: finish, commit, let go; no-op when nothing is held."""
        ...


def check_versions() -> None:
    """Refuse versions whose private names were not verified.

    Raises:
        ConfigError: names what is installed and what was tested.
    """
    for package, tested in TESTED_VERSIONS.items():
        found = version(package)
        if found != tested:
            message = (
                f"{package} {found} is installed, the worker needs {tested}: it relies on that version's internals"
            )
            raise ConfigError(message)


class Shell:
    """Group membership and commits of one Faust app.

    Args:
        app: not started yet.
        listener: told about partitions.
        guard: asked before a static member joins; None for a member without an instance id.
        rack: where the worker runs; see `kafka.client_rack`.
    """

    def __init__(
        self, app: faust.App, listener: Listener, guard: JoinGuard | None = None, rack: str | None = None
    ) -> None:
        self._app = app
        self._guard, self._rack = guard, rack
        self._lease_s = LEASE_SHARE_OF_SESSION * float(app.conf.broker_session_timeout)
        self._last_heartbeat_s = 0.0
        self._watched: Any = None
        self._log = logger("worker")
        app.transport.Consumer = _consumer_class(self, listener)  # type: ignore[misc]

    @property
    def _thread(self) -> Any:
        return self._app.consumer._thread  # type: ignore[attr-defined]  # noqa: SLF001

    @property
    def _aiokafka(self) -> Any:
        return self._thread._consumer  # noqa: SLF001

    def is_valid(self, generation: int) -> bool:
        """Tell whether a generation is current and its lease good; cheap, and safe to ask from the main thread."""
        # Asked four times per event: nothing is looked up that an assignment has noted.
        coordinator = self._watched
        if coordinator is None or coordinator.generation != generation:
            return False
        return boot_time_s() - self._last_heartbeat_s < self._lease_s

    def watch_heartbeats(self) -> None:
        """Note when good heartbeats are sent; the question for the assignment counts as one."""
        coordinator = self._aiokafka._coordinator  # noqa: SLF001
        self._last_heartbeat_s = max(self._last_heartbeat_s, coordinator.synced_s)
        if coordinator is self._watched:
            return
        self._watched = coordinator
        original: Callable[[], Awaitable[bool]] = coordinator._do_heartbeat  # noqa: SLF001

        async def heartbeat() -> bool:
            sent_s = boot_time_s()
            is_good = await original()
            if is_good:
                self._last_heartbeat_s = sent_s
            return is_good

        coordinator._do_heartbeat = heartbeat  # noqa: SLF001

    async def committed(self, tps: frozenset[TP]) -> dict[TP, tuple[int, str] | None]:
        """Return, per partition, committed offset and metadata; None where nothing was ever committed.

        Raises:
            LogUnavailable: the coordinator did not answer.
        """
        wanted = [TopicPartition(*tp) for tp in tps]
        if not wanted:
            return {}
        coordinator = self._aiokafka._coordinator  # noqa: SLF001
        found = await self._ask(coordinator.fetch_committed_offsets, wanted)
        commits: dict[TP, tuple[int, str] | None] = {}
        for tp in tps:
            commit = found.get(TopicPartition(*tp))
            commits[tp] = (commit.offset, commit.metadata or "") if commit and commit.offset >= 0 else None
        return commits

    def let_read(self, restarts: Mapping[TP, int], read: Mapping[TP, tuple[int, int]]) -> None:
        """Have records of this assignment handed out.

        Args:
            restarts: from where partitions are read that are not read from their commit.
            read: of the others, as far as known, the offset behind the last record below the commit, and its epoch.
        """
        cast("EngineThread", self._thread).read_before = read
        cast("_EngineConsumer", self._app.consumer).let_read(restarts)

    def rejoin(self) -> None:
        """Have the group assign partitions anew; everything is handed over before."""
        coordinator = self._aiokafka._coordinator  # noqa: SLF001
        self._thread.thread_loop.call_soon_threadsafe(coordinator.request_rejoin)

    async def _ask(self, question: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a coroutine on the consumer's thread."""
        try:
            return await self._thread.call_thread(question, *args)
        except KafkaError as error:
            message = f"the consumer group's state cannot be read: {error!r}"
            raise LogUnavailable(message) from error

    async def commit(self, offsets: Mapping[TP, tuple[int, str]]) -> bool:
        """Commit offsets with metadata, through the consumer that is the group's member.

        Returns:
            False when the group has moved on or the coordinator is away: nothing is lost, the next commit covers it.
        """
        wanted = {TopicPartition(*tp): OffsetAndMetadata(offset, mark) for tp, (offset, mark) in offsets.items()}
        try:
            await self._thread.call_thread(self._aiokafka.commit, wanted)
        except (CommitFailedError, IllegalStateError) as error:
            COMMITS.labels("rebalanced").inc()
            self._log.info("commit.refused", error=str(error))
            return False
        except KafkaError as error:
            COMMITS.labels("failed").inc()
            self._log.warning("commit.failed", error=repr(error))
            return False
        COMMITS.labels("ok").inc()
        # Faust's monitor would report partitions that "have not committed".
        now = time.monotonic()
        self._thread.tp_last_committed_at.update(dict.fromkeys(wanted, now))
        self._app.monitor.on_tp_commit({tp: commit.offset for tp, commit in wanted.items()})
        return True

    def tick(self, ticked: Callable[[], None]) -> None:
        """Have the consumer thread's loop call something; it never does when that loop is stuck or gone."""
        self._thread.thread_loop.call_soon_threadsafe(ticked)

    async def reach(self, tps: frozenset[TP], limit_s: float) -> dict[TP, Reach]:
        """Return, per partition that is ours, how far it is read and what there is.

        Not through Faust's method queue: its two workers are for commits, and this question may hang.

        Raises:
            LogUnavailable: no answer in time.
        """
        consumer, loop = self._aiokafka, self._thread.thread_loop
        wanted = [TopicPartition(*tp) for tp in tps]
        try:
            asked = asyncio.run_coroutine_threadsafe(reach(consumer, wanted, limit_s), loop)
            async with asyncio.timeout(2 * limit_s):
                return await asyncio.wrap_future(asked)
        except (TimeoutError, RuntimeError) as error:
            message = f"the ends of the partitions cannot be read: {error!r}"
            raise LogUnavailable(message) from error

    def high_watermark(self, tp: TP) -> int | None:
        """Return the end of a partition as of the last fetch; None before the first, and once it is not ours.

        It is the last stable offset: what lies behind it belongs to open transactions, and cannot be read yet.
        """
        wanted = TopicPartition(*tp)
        # aiokafka asserts that it is assigned, and its thread may be ahead of us.
        watermark = self._aiokafka.last_stable_offset(wanted) if wanted in self._aiokafka.assignment() else None
        return None if watermark is None or watermark < 0 else int(watermark)

    def read_to(self) -> Mapping[TP, tuple[int | None, int]]:
        """Return, per partition, the last record handed out since the assignment (None = none), and the next offset.

        Between the two lies nothing to process: transaction markers, aborted records, what compaction removed.
        """
        return cast("EngineThread", self._thread).read_to

    async def ends(self, tps: frozenset[TP]) -> dict[TP, int]:
        """Return where partitions end now, open transactions not counted.

        Raises:
            LogUnavailable: a partition's leader did not answer.
        """
        wanted = [TopicPartition(*tp) for tp in tps]
        found = await self._ask(self._aiokafka.end_offsets, wanted) if wanted else {}
        return {TP(tp.topic, tp.partition): int(end) for tp, end in found.items()}

    def runs(self) -> Mapping[TP, tuple[Run, ...]]:
        """Return, per partition, the epochs of the leaders that wrote what was handed out since the assignment."""
        return cast("EngineThread", self._thread).runs

    async def epoch_ends(self, epochs: Mapping[TP, int]) -> dict[TP, int]:
        """Return, per partition, where the epoch of a leader ends in the log; without those of which it is not known.

        Raises:
            LogUnavailable: a partition's leader did not answer.
        """
        found = await self._ask(epoch_ends, self._aiokafka._client, epochs) if epochs else {}  # noqa: SLF001
        return {TP(tp.topic, tp.partition): end for tp, end in found.items()}

    def new_thread(self, consumer: Consumer) -> EngineThread:
        """Return the consumer thread, not started yet."""
        thread = EngineThread(consumer, loop=consumer.loop, beacon=consumer.beacon)
        thread.guard, thread.rack = self._guard, self._rack
        return thread


class _EngineConsumer(BundlingConsumer):
    """Faust's consumer with the hand-over and the assignment led to us."""

    shell: Shell
    listener: Listener

    def __post_init__(self) -> None:
        super().__post_init__()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._restarts: Mapping[TP, int] = {}
        self._assignments = 0
        self._has_sought = True

    def let_read(self, restarts: Mapping[TP, int]) -> None:
        self._restarts = restarts
        self._may_read.set()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's signature
        if not self.flow_active:
            # Faust would wait for this after us, and read at once.
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]
        if not self._may_read.is_set():
            # A record that is handed out before a partition is read again from its beginning would come twice, and
            # Faust would drop the ones below it. aiokafka fetches meanwhile.
            await self.wait(self._may_read.wait(), timeout=timeout)
            return {}, self._get_active_partitions()
        if self.app.rebalancing or not self._has_sought:
            # Faust has not gone to the commits yet. It stops no flow where nothing was revoked: a worker that had no
            # partitions would read before that, and once more behind it. And what it still does for an assignment may
            # start the flow, and say that the rebalance is over, when the next one has begun.
            await self.sleep(_REBALANCE_POLL_S)
            return {}, self._get_active_partitions()
        if self._restarts:
            await self._restart()
            return {}, self._get_active_partitions()
        return await super()._wait_next_records(timeout)

    async def perform_seek(self) -> None:
        number = self._assignments
        try:
            await super().perform_seek()
        finally:
            # Also when it was given up: nothing is gone to any more.
            self._has_sought = self._has_sought or number == self._assignments

    async def _restart(self) -> None:
        restarts = self._restarts
        try:
            # The next assignment, if these are not ours any more, begins with the commits that were made of them.
            with contextlib.suppress(IllegalStateError):
                await self.seek_wait({faust.types.TP(*tp): offset for tp, offset in restarts.items()})
        finally:
            if self._restarts is restarts:
                self._restarts = {}

    def _new_consumer_thread(self) -> EngineThread:
        return self.shell.new_thread(self)

    def went_back(self, tp: Any) -> None:
        if tp not in self._restarts:
            # It is not where it is told to read from yet; before that, its commit may lie behind the end of the log.
            self.listener.went_back(TP(tp.topic, tp.partition))

    async def wait_empty(self) -> None:
        await self.listener.hand_over()
        self._unacked_messages.clear()

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        if self.app.should_stop:
            # Faust skips the hand-over then, and the group would move on under a drain that still goes on.
            await self.listener.hand_over()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[Any], generation_id: int = 0) -> None:
        if self.app.should_stop:
            await super().on_partitions_assigned(assigned, generation_id)
            return
        # Before Faust resumes the flow, so that the first record finds its tenure.
        self.listener.coming(generation_id)
        self._may_read.clear()
        self._restarts = {}
        self._assignments, self._has_sought = self._assignments + 1, not assigned
        cast("EngineThread", self._thread).forget_read()
        await super().on_partitions_assigned(assigned, generation_id)
        self.shell.watch_heartbeats()
        self.listener.assigned(frozenset(TP(tp.topic, tp.partition) for tp in assigned), generation_id)

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Leave liveness to our own watchdog."""


def _consumer_class(shell: Shell, listener: Listener) -> type[Consumer]:
    """Return the consumer class of one app: Faust's transport makes the consumer itself."""
    return type("EngineConsumer", (_EngineConsumer,), {"shell": shell, "listener": listener})


__all__ = ["TESTED_VERSIONS", "Listener", "Shell", "check_versions"]
