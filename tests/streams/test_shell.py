"""The one file that knows private names: each is there in the tested versions, and means what we take it for."""

import asyncio
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, KafkaTimeoutError, RequestTimedOutError
from aiokafka.structs import OffsetAndMetadata
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver
from mode.threads import ServiceThread

from contracts.errors import ConfigError, LogUnavailable
from streams import shell as shell_module
from streams.engine.item import TP
from streams.fetching import EngineThread
from streams.log_ends import Reach
from streams.shell import LEASE_SHARE_OF_SESSION, TESTED_VERSIONS, Shell, check_versions
from tests.support import eventually_async

TP0 = TP("events", 0)
EARLIEST = fetcher.OffsetResetStrategy.EARLIEST


def source_of(function: Any) -> str:
    return inspect.getsource(function)


# --- the names


def test_the_installed_versions_are_the_tested_ones() -> None:
    check_versions()


@pytest.mark.parametrize("package", TESTED_VERSIONS)
def test_another_version_is_refused_by_name(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {**TESTED_VERSIONS, package: "99.0"}
    monkeypatch.setattr(shell_module, "version", versions.__getitem__)

    with pytest.raises(
        ConfigError, match=rf"^{package} 99\.0 is installed, the worker needs {TESTED_VERSIONS[package]}"
    ):
        check_versions()


def test_consumer_thread() -> None:
    assert "self._thread = " in source_of(faust_consumer.ThreadDelegateConsumer.__init__)


def test_thread_consumer() -> None:
    assert "self._consumer = self._create_consumer" in source_of(driver.AIOKafkaConsumerThread.on_start)


def test_thread_call_thread() -> None:
    assert list(inspect.signature(driver.AIOKafkaConsumerThread.call_thread).parameters) == [
        "self", "fun", "args", "kwargs",
    ]  # fmt: skip


def test_thread_loop() -> None:
    assert "self.thread_loop = thread_loop or" in source_of(ServiceThread.__init__)


def test_thread_tp_last_committed_at() -> None:
    assert "self.tp_last_committed_at.update" in source_of(driver.AIOKafkaConsumerThread._commit)


def test_aiokafka_coordinator() -> None:
    assert "self._coordinator = GroupCoordinator(" in source_of(AIOKafkaConsumer.start)


def test_coordinator_generation() -> None:
    assert "self.generation = OffsetCommitRequest.DEFAULT_GENERATION_ID" in source_of(GroupCoordinator.reset_generation)


def test_coordinator_do_heartbeat() -> None:
    assert inspect.iscoroutinefunction(GroupCoordinator._do_heartbeat)
    assert "await self._do_heartbeat()" in source_of(GroupCoordinator._heartbeat_routine)


def test_coordinator_fetch_committed_offsets() -> None:
    assert inspect.iscoroutinefunction(GroupCoordinator.fetch_committed_offsets)
    assert list(inspect.signature(GroupCoordinator.fetch_committed_offsets).parameters) == ["self", "partitions"]


def test_coordinator_request_rejoin() -> None:
    assert "self._rejoin_needed_fut.set_result(None)" in source_of(GroupCoordinator.request_rejoin)
    assert "self._rejoin_needed_fut.done()" in source_of(GroupCoordinator.need_rejoin)


def test_consumer_wait_next_records_is_where_records_are_asked_for() -> None:
    assert list(inspect.signature(faust_consumer.Consumer._wait_next_records).parameters) == ["self", "timeout"]
    assert "await self._wait_next_records(timeout)" in source_of(faust_consumer.Consumer.getmany)
    # Nothing is waited for between our look at the flow and its own.
    first = source_of(faust_consumer.Consumer._wait_next_records).split(":", 2)[2].split("await")[0]
    assert "if not self.flow_active" in first


def test_consumer_seek_wait_forgets_what_was_read() -> None:
    source = source_of(driver.AIOKafkaConsumerThread._seek_wait)

    assert "consumer.seek(tp, offset)" in source
    assert "self.consumer._read_offset[tp] = offset" in source
    assert "del self.consumer._read_offset[tp]" in source


def test_faust_goes_to_the_commits_before_it_says_that_the_rebalance_is_over() -> None:
    source = source_of(Recovery._resume_streams)

    assert 0 < source.index("consumer.perform_seek()") < source.index("consumer.resume_flow()")
    assert source.index("consumer.perform_seek()") < source.index("app.on_rebalance_end()")
    # It makes that seek for whom has partitions, and for nobody else.
    before = source.split("consumer.perform_seek()", maxsplit=1)[0]
    assert before.rindex("if assignment:") > before.rindex("return")
    assert inspect.iscoroutinefunction(faust_consumer.Consumer.perform_seek)
    assert "self.rebalancing = True" in source_of(App.on_rebalance_start)
    assert "self.rebalancing = False" in source_of(App.on_rebalance_end)


def test_consumer_wait_empty_is_asked_at_rebalance_and_at_stop() -> None:
    assert inspect.iscoroutinefunction(faust_consumer.Consumer.wait_empty)
    assert "await consumer.wait_empty()" in source_of(App._consumer_wait_empty)
    assert "_consumer_wait_empty" in source_of(App._on_partitions_revoked)
    assert "_consumer_wait_empty" in source_of(App._stop_consumer)


def test_consumer_on_partitions_assigned() -> None:
    signature = inspect.signature(faust_consumer.Consumer.on_partitions_assigned)

    assert list(signature.parameters) == ["self", "assigned", "generation_id"]


def test_consumer_verify_event_path() -> None:
    assert list(inspect.signature(faust_consumer.Consumer.verify_event_path).parameters) == ["self", "now", "tp"]


def test_consumer_unacked_messages() -> None:
    assert "self._unacked_messages = " in source_of(faust_consumer.Consumer.__init__)
    assert "self._unacked_messages" in source_of(vars(faust_consumer.Consumer)["unacked"].fget)


def test_the_transport_takes_our_consumer_class() -> None:
    shell, app = make_shell()[:2]

    assert shell is not None
    assert issubclass(app.transport.Consumer, driver.Consumer)
    assert app.transport.Consumer is not driver.Consumer
    assert "self.Consumer(" in source_of(type(app.transport).create_consumer)


# --- the behaviour, on stand-ins for the consumer


class Coordinator:
    """Stands for aiokafka's."""

    def __init__(self) -> None:
        self.generation = 7
        self.synced_s = 1000.0
        self.heartbeats: list[bool] = []
        self.commits: dict[TopicPartition, OffsetAndMetadata] = {}

    async def _do_heartbeat(self) -> bool:
        return self.heartbeats.pop(0)

    async def fetch_committed_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, Any]:
        return {tp: self.commits[tp] for tp in partitions if tp in self.commits}


class Client:
    """Stands for aiokafka's consumer; of partition n, broker n is the leader."""

    def __init__(self) -> None:
        self._coordinator = Coordinator()
        self.error: Exception | None = None
        self.away: set[int] = set()
        leader = SimpleNamespace(leader_for_partition=lambda tp: tp.partition)
        self._client = SimpleNamespace(cluster=leader)
        self._fetcher = SimpleNamespace(_records={})
        self._subscription: Any = SimpleNamespace(subscription=None)
        self.committed: list[dict[TopicPartition, OffsetAndMetadata]] = []
        self.tps = {TopicPartition("events", 0)}

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if self.error:
            raise self.error
        self.committed.append(offsets)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self.error:
            raise self.error
        if self.away & {tp.partition for tp in tps}:
            raise KafkaTimeoutError
        return dict.fromkeys(tps, 99)

    def assign(self, *numbers: int) -> None:
        """Have partitions of which nothing is fetched yet, read up to 50."""
        self.tps = {TopicPartition("events", number) for number in numbers}
        self._subscription = SubscriptionState()
        self._subscription.assign_from_user(self.tps)
        for tp in self.tps:
            self.state(tp.partition).seek(50)

    def state(self, number: int) -> TopicPartitionState:
        state: TopicPartitionState = self._subscription.subscription.assignment.state_value(
            TopicPartition("events", number)
        )
        return state

    def assignment(self) -> set[TopicPartition]:
        return self.tps

    def last_stable_offset(self, tp: TopicPartition) -> int:
        assert tp in self.tps, "Partition is not assigned"
        return 99


class Thread:
    """Stands for Faust's consumer thread."""

    def __init__(self, client: Client) -> None:
        self._consumer = client
        self.tp_last_committed_at: dict[TopicPartition, float] = {}

    async def call_thread(self, fun: Callable[..., Any], *args: Any) -> Any:
        return await fun(*args)

    def forget_read(self) -> None:
        EngineThread.forget_read(cast("EngineThread", self))


class Listener:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def coming(self, generation: int) -> None:
        self.told.append(("coming", generation))

    def assigned(self, tps: frozenset[TP], generation: int) -> None:
        self.told.append(("assigned", tps, generation))

    def went_back(self, tp: TP) -> None:
        self.told.append(("went back", tp))

    async def hand_over(self) -> None:
        self.told.append("hand over")


class Clock:
    """Seconds since boot, when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(shell_module, "boot_time_s", lambda: self.now_s)


def make_shell() -> tuple[Shell, faust.App, Client]:
    app = faust.App("shell-test", broker_session_timeout=10, autodiscover=False, web_enabled=False)
    client = Client()
    shell = Shell(app, Listener())
    consumer = type("FaustConsumer", (), {"_thread": Thread(client)})()
    app.consumer = consumer
    return shell, app, client


async def test_a_generation_that_is_not_the_current_one_is_not_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    shell, _, client = make_shell()
    shell.watch_heartbeats()

    assert (shell.is_valid(7), shell.is_valid(6)) == (True, False)

    client._coordinator.generation = -1

    assert not shell.is_valid(7)


async def test_the_lease_ends_a_share_of_the_session_after_the_last_good_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    shell, _, client = make_shell()
    shell.watch_heartbeats()
    clock.now_s += LEASE_SHARE_OF_SESSION * 10 - 0.1

    assert shell.is_valid(7)

    client._coordinator.heartbeats = [False, True]
    await client._coordinator._do_heartbeat()
    clock.now_s += 0.2

    assert not shell.is_valid(7)

    await client._coordinator._do_heartbeat()

    assert shell.is_valid(7)


async def test_a_heartbeat_counts_from_when_it_was_sent_and_not_from_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    shell, _, client = make_shell()

    async def slow() -> bool:
        clock.now_s += 8
        return True

    client._coordinator._do_heartbeat = slow  # type: ignore[method-assign]
    shell.watch_heartbeats()
    await client._coordinator._do_heartbeat()
    clock.now_s += 2

    assert not shell.is_valid(7)


async def test_the_lease_of_an_assignment_that_is_taken_late_does_not_begin_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen machine: others have the partitions by now, and the first heartbeat is still to come."""
    clock = Clock(monkeypatch)
    shell, _, client = make_shell()
    clock.now_s += 60
    shell.watch_heartbeats()

    assert not shell.is_valid(7)

    client._coordinator.heartbeats = [True]
    await client._coordinator._do_heartbeat()

    assert shell.is_valid(7)


async def test_heartbeats_are_wrapped_once_per_coordinator() -> None:
    shell, _, client = make_shell()
    shell.watch_heartbeats()
    wrapped = client._coordinator._do_heartbeat
    shell.watch_heartbeats()

    assert client._coordinator._do_heartbeat is wrapped


async def test_a_commit_goes_through_the_member_with_its_mark() -> None:
    shell, app, client = make_shell()
    tp = TopicPartition("events", 0)

    assert await shell.commit({TP0: (5, "penstock1 r=3")})
    assert client.committed == [{tp: OffsetAndMetadata(5, "penstock1 r=3")}]
    assert app.consumer._thread.tp_last_committed_at.keys() == {tp}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "error", [CommitFailedError(), IllegalStateError("not assigned"), RequestTimedOutError(), KafkaError("away")]
)
async def test_a_refused_commit_is_told_and_is_no_fault(error: Exception) -> None:
    shell, _, client = make_shell()
    client.error = error

    assert not await shell.commit({TP0: (5, "")})


async def test_commits_are_read_with_their_metadata() -> None:
    shell, _, client = make_shell()
    client._coordinator.commits = {
        TopicPartition("events", 0): OffsetAndMetadata(5, "penstock1 r=3"),
        TopicPartition("events", 1): OffsetAndMetadata(-1, ""),
        TopicPartition("events", 2): OffsetAndMetadata(0, None),
    }
    tps = frozenset(TP("events", n) for n in range(4))

    assert await shell.committed(tps) == {
        TP("events", 0): (5, "penstock1 r=3"), TP("events", 1): None, TP("events", 2): (0, ""), TP("events", 3): None,
    }  # fmt: skip


async def test_a_question_that_the_broker_does_not_answer_is_our_error() -> None:
    shell, _, client = make_shell()
    client.error = RequestTimedOutError()

    with pytest.raises(LogUnavailable, match="the consumer group's state cannot be read"):
        await shell.ends(frozenset({TP0}))


async def test_a_partition_that_is_not_ours_any_more_has_no_watermark() -> None:
    shell, _, _ = make_shell()

    assert (shell.high_watermark(TP0), shell.high_watermark(TP("events", 5))) == (99, None)


async def test_giving_up_partitions_is_led_to_the_listener_and_forgets_what_faust_counts() -> None:
    listener = Listener()
    app = faust.App("shell-test-2", autodiscover=False, web_enabled=False)
    Shell(app, listener)
    consumer_class = app.transport.Consumer
    consumer = consumer_class.__new__(consumer_class)
    consumer._unacked_messages = {object()}  # type: ignore[attr-defined]
    await asyncio.wait_for(consumer.wait_empty(), 1)

    assert (listener.told, consumer._unacked_messages) == (["hand over"], set())  # type: ignore[attr-defined]


async def test_a_log_that_lost_its_end_is_told_to_the_listener() -> None:
    """Not before it is read from where the books begin: its commit may have lain behind the end."""
    listener = Listener()
    app = faust.App("shell-test-3", autodiscover=False, web_enabled=False)
    Shell(app, listener)
    consumer_class: Any = app.transport.Consumer
    consumer = consumer_class.__new__(consumer_class)
    consumer._restarts = {TP0: 0}
    consumer.went_back(TopicPartition(*TP0))
    before = list(listener.told)
    consumer._restarts = {}
    consumer.went_back(TopicPartition(*TP0))

    assert (before, listener.told) == ([], [("went back", TP0)])


async def test_the_group_is_joined_anew_on_the_consumers_thread(thread_loop: asyncio.AbstractEventLoop) -> None:
    shell, client = with_thread_loop(thread_loop)
    asked: list[int] = []
    client._coordinator.request_rejoin = lambda: asked.append(threading.get_ident())  # type: ignore[attr-defined]
    shell.rejoin()
    await eventually_async(lambda: asked)

    assert asked != [threading.get_ident()]


@pytest.fixture
def thread_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop in a thread of its own, as Faust's consumer has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(_rest(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


async def _rest() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*tasks, return_exceptions=True)


def with_thread_loop(loop: asyncio.AbstractEventLoop) -> tuple[Shell, Client]:
    shell, _, client = make_shell()
    shell._thread.thread_loop = loop
    return shell, client


async def test_the_consumer_thread_ticks_on_its_own_loop(thread_loop: asyncio.AbstractEventLoop) -> None:
    ticks: list[int] = []
    with_thread_loop(thread_loop)[0].tick(lambda: ticks.append(threading.get_ident()))
    await eventually_async(lambda: ticks)

    assert ticks != [threading.get_ident()]


@pytest.fixture
def reading(thread_loop: asyncio.AbstractEventLoop) -> tuple[Shell, Client]:
    """Return a shell whose consumer has partitions 0 to 3."""
    shell, client = with_thread_loop(thread_loop)

    async def assign() -> None:
        client.assign(0, 1, 2, 3)

    asyncio.run_coroutine_threadsafe(assign(), thread_loop).result(5)
    return shell, client


TPS = frozenset(TP("events", number) for number in range(5))


async def test_how_far_what_is_still_ours_is_read_is_told(reading: tuple[Shell, Client]) -> None:
    shell, client = reading
    client.state(1).timestamp = int(1000 * (time.time() - 70))
    client._fetcher._records[TopicPartition("events", 2)] = object()
    client.state(3).await_reset(EARLIEST)
    found = await shell.reach(TPS, 5)

    assert found.keys() == TPS - {TP("events", 4)}
    assert found[TP0] == Reach(50, 99)
    assert 70 <= found[TP("events", 1)].fetched_s < 100
    assert found[TP("events", 2)] == Reach(50, 99, in_hand=True)
    assert found[TP("events", 3)] == Reach(None, 99)


async def test_a_clock_that_was_set_back_hides_no_partition_that_is_not_fetched(reading: tuple[Shell, Client]) -> None:
    """It would count as fetched until the clock has caught up."""
    shell, client = reading
    client.state(1).timestamp = int(1000 * (time.time() + 3600))
    found = await shell.reach(TPS, 5)

    assert found[TP("events", 1)].fetched_s == math.inf


async def test_a_leader_that_is_away_hides_no_end_of_others(reading: tuple[Shell, Client]) -> None:
    """And what is read does not depend on any broker."""
    shell, client = reading
    client.away = {1}
    found = await shell.reach(TPS, 5)

    assert found[TP0] == Reach(50, 99)
    assert found[TP("events", 1)] == Reach(50, None, is_told=False)


async def test_nothing_is_told_of_a_consumer_without_an_assignment(thread_loop: asyncio.AbstractEventLoop) -> None:
    shell, _ = with_thread_loop(thread_loop)

    assert await shell.reach(TPS, 5) == {}


@pytest.mark.parametrize(
    ("reach", "unread", "is_fetched"),
    [
        (Reach(50, 99, fetched_s=29), 49, True),
        (Reach(50, 50, fetched_s=31), 0, False),
        (Reach(50, 40), 0, False),
        (Reach(None, 99), 0, False),
        (Reach(50, None), 0, False),
    ],
)
def test_what_is_unread_lies_between_position_and_end(reach: Reach, unread: int, *, is_fetched: bool) -> None:
    assert (reach.unread, reach.is_fetched) == (unread, is_fetched)


def test_the_names_that_tell_how_far_a_partition_is_read() -> None:
    fetched = source_of(fetcher.Fetcher._proc_fetch_request)

    # Only where the broker has answered without an error.
    assert fetched.index("if error_type is Errors.NoError") < fetched.index("tp_state.timestamp = now_ms")
    assert fetched.count("tp_state.timestamp") == 1
    assert "int(1000 * time.time())" in fetched
    assert "self._records[tp] = FetchResult(" in fetched
    # What is in hand keeps from being fetched, and nothing else that Faust does.
    assert "if tp in self._records:" in source_of(fetcher.Fetcher._get_actions_per_node)
    assert "self._fetcher = Fetcher(" in source_of(AIOKafkaConsumer.start)
    assert "self._subscription = SubscriptionState(" in source_of(AIOKafkaConsumer.__init__)


async def test_a_consumer_thread_that_is_stuck_keeps_nobody_waiting(thread_loop: asyncio.AbstractEventLoop) -> None:
    shell, _ = with_thread_loop(thread_loop)
    release = threading.Event()
    thread_loop.call_soon_threadsafe(release.wait, 10)
    try:
        with pytest.raises(LogUnavailable, match="cannot be read: TimeoutError"):
            await shell.reach(frozenset({TP0}), 0.05)
    finally:
        release.set()
