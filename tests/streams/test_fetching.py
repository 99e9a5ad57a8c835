"""The consumer thread: what it notes, and records that aiokafka's fast parser stumbles over."""

import asyncio
import gc
import inspect
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.consumer import fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from faust import types as faust_types
from faust.transport import consumer as faust_consumer
from faust.transport.drivers import aiokafka as driver

from streams import fetching, log_ends, unpacking
from streams.engine.item import TP
from streams.fetching import BUNDLE_RECORDS, BundlingConsumer, EngineThread, hurry
from streams.log_ends import EndWatch, Run
from streams.unpacking import KeptRecords, Piece, PiecewiseFetchResult, TolerantPartitionRecords
from tests.support import eventually_async

AT, BESIDE = TopicPartition("events", 0), TopicPartition("events", 1)
BROKEN = b"\xffname"


# --- the names


def test_thread_create_worker_consumer() -> None:
    assert "isolation_level=isolation_level" in inspect.getsource(driver.AIOKafkaConsumerThread._create_worker_consumer)
    assert "isolation_level=self._isolation_level" in inspect.getsource(AIOKafkaConsumer.start)
    assert "client_rack=self._client_rack" in inspect.getsource(AIOKafkaConsumer.start)


@pytest.mark.parametrize("rack", [None, "euc1-az1"])
def test_the_consumer_says_where_it_runs(rack: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = SimpleNamespace(_client_rack=None, _isolation_level="")
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_create_worker_consumer", lambda *_: made)
    thread = make_thread()
    thread.rack = rack

    assert thread._create_worker_consumer(None)._client_rack == rack


def test_thread_on_partitions_assigned_comes_between_two_questions() -> None:
    assert "await self._thread.on_partitions_assigned(" in inspect.getsource(driver.ConsumerRebalanceListener)
    assert "self._subscription.listener.on_partitions_assigned(assigned)" in inspect.getsource(GroupCoordinator)


def test_thread_fetch_records() -> None:
    assert "self._fetch_records" in inspect.getsource(driver.AIOKafkaConsumerThread.getmany)


def test_fetcher_looks_its_parsers_up_by_name() -> None:
    source = inspect.getsource(fetcher.Fetcher._proc_fetch_request)

    assert "MemoryRecords(part_data[-1])" in source
    assert "PartitionRecords(\n" in source


def test_fetcher_goes_to_the_beginning_of_a_log_that_does_not_reach_so_far() -> None:
    fetching_one = inspect.getsource(fetcher.Fetcher._proc_fetch_request)
    routine = inspect.getsource(fetcher.Fetcher._fetch_requests_routine)

    assert (
        "for topic, partitions in request.topics:\n            for partition, offset, _ in partitions:" in fetching_one
    )
    assert "tp_state.await_reset(self._default_reset_strategy)" in fetching_one
    assert "self._invalidate_preferred_read_replica_for_node(node_id, request)" in fetching_one
    assert "tp_state.reset_to(offset)" in inspect.getsource(fetcher.Fetcher._update_fetch_positions)
    assert "self._proc_fetch_request(assignment, node_id, request)" in routine
    assert "self._update_fetch_positions(assignment, node_id, tps)" in routine


def test_thread_seek_wait_is_how_a_place_is_told() -> None:
    assert "self.call_thread(self._seek_wait, consumer, partitions)" in inspect.getsource(
        driver.AIOKafkaConsumerThread.seek_wait
    )


# --- notes


class Assignment:
    """Stands for aiokafka's, with one partition."""

    def __init__(self, position: int) -> None:
        self.tps = {AT}
        self.active = True
        self.state: Any = SimpleNamespace(position=position, has_valid_position=True)

    def state_value(self, _tp: TopicPartition) -> Any:
        return self.state


class State:
    """Stands for aiokafka's state of a partition."""

    def __init__(self) -> None:
        self.position, self.paused = 0, False

    def consumed_to(self, position: int) -> None:
        self.position = position


def at_the_beginning() -> Assignment:
    assignment = Assignment(0)
    assignment.state = State()
    return assignment


def make_thread() -> EngineThread:
    thread = EngineThread.__new__(EngineThread)
    thread.forget_read()
    thread._assignment, thread._noted_s, thread._fetch = None, 0.0, None
    thread._ends = EndWatch(lambda _tp: None)
    return thread


def record(offset: int, timestamp: int = 1000) -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp)


def fetch(thread: EngineThread, assignment: Assignment, records: dict[Any, list[Any]]) -> None:
    thread._note(thread._ends_of(assignment).take(records))


def test_the_last_record_and_the_position_are_noted_together() -> None:
    thread = make_thread()
    fetch(thread, Assignment(9), {AT: [record(4), record(6)]})

    assert thread.read_to == {TP("events", 0): (6, 9)}


def test_a_fetch_without_records_moves_the_position_only() -> None:
    thread, assignment = make_thread(), Assignment(7)
    fetch(thread, assignment, {AT: [record(6)]})
    assignment.state.position = 12
    fetch(thread, assignment, {})

    assert thread.read_to == {TP("events", 0): (6, 12)}


def test_another_assignment_starts_without_a_last_record() -> None:
    thread = make_thread()
    fetch(thread, Assignment(7), {AT: [record(6)]})
    fetch(thread, Assignment(3), {})

    assert thread.read_to == {TP("events", 0): (None, 3)}


# --- logs that lose their end


def read_to_seven() -> tuple[EngineThread, Assignment, TopicPartitionState]:
    """Return a thread that has handed out record 6, its assignment, and aiokafka's state of the partition."""
    thread, assignment, state = make_thread(), Assignment(7), TopicPartitionState(None)
    assignment.state = state
    state.seek(7)
    fetch(thread, assignment, {AT: [record(6)]})
    return thread, assignment, state


def looked_after(thread: Any, fetch: Any, update: Any = None) -> Any:
    """Return a fetcher of these two methods, as the thread has wrapped them."""
    fetcher = SimpleNamespace(
        _proc_fetch_request=fetch,
        _update_fetch_positions=update,
        _invalidate_preferred_read_replica_for_node=lambda *_: None,
    )
    thread._look_back(fetcher)
    return fetcher


def request_for_seven() -> Any:
    return SimpleNamespace(topics=[("events", [(0, 7, 1)])])


async def test_aiokafka_is_led_back_to_the_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: its fetcher asks for what is not there, goes to the beginning, and finds itself led back."""
    monkeypatch.setattr(fetching, "_LOOK_AGAIN_S", 0.0)
    thread, assignment, state = read_to_seven()

    async def proc_fetch_request(*_: object) -> bool:
        state.await_reset(-2)
        return False

    async def update_fetch_positions(*_: object) -> bool:
        state.reset_to(0)
        return False

    client = looked_after(thread, proc_fetch_request, update_fetch_positions)
    await client._proc_fetch_request(assignment, 1, request_for_seven())
    await client._update_fetch_positions(assignment, 1, [AT])

    assert state.position == 6


async def test_aiokafka_is_led_back_when_a_fetch_fails() -> None:
    thread, assignment, state = read_to_seven()

    async def proc_fetch_request(_assignment: object, node_id: int, request: object) -> bool:
        client._invalidate_preferred_read_replica_for_node(node_id, request)
        return False

    client = looked_after(thread, proc_fetch_request)
    await client._proc_fetch_request(assignment, 1, request_for_seven())

    assert state.position == 6


@pytest.mark.parametrize(("brings", "waits"), [(False, 1), (True, 0)])
async def test_a_fetch_that_is_refused_is_made_again_a_little_later(
    brings: bool,
    waits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a damaged log, aiokafka would make it again at once, for ever."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)

    async def proc_fetch_request(*_: object) -> bool:
        return brings

    thread, assignment, _ = read_to_seven()
    client = looked_after(thread, proc_fetch_request)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    found = await client._proc_fetch_request(assignment, 1, request_for_seven())

    assert (found, paused) == (brings, [fetching._REFUSED_S] * waits)


async def test_a_fetch_that_is_cut_off_behind_its_failure_is_not_kept_for_ever() -> None:
    class Request:
        topics = (("events", ((0, 7, 1),)),)

    thread, assignment, _ = read_to_seven()

    async def proc_fetch_request(_assignment: object, node_id: int, request: object) -> bool:
        client._invalidate_preferred_read_replica_for_node(node_id, request)
        await asyncio.Event().wait()
        return False

    client = looked_after(thread, proc_fetch_request)
    request = Request()
    kept = weakref.ref(request)
    fetching_one = asyncio.ensure_future(client._proc_fetch_request(assignment, 1, request))
    await asyncio.sleep(0)
    fetching_one.cancel()
    await asyncio.wait([fetching_one])
    del request, fetching_one
    gc.collect()

    assert kept() is None


class Fetching:
    """A thread that has read offsets 3 and 4 under epoch 1, and fetches 5 and 6 under epoch 2.

    Attributes:
        meanwhile: what happens before an answer.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        monkeypatch.setattr(fetching, "_LOOK_AGAIN_S", 0.0)
        monkeypatch.setattr(fetching, "epoch_ends", self._ends)
        self.answers = list(answers)
        self.asked: list[dict[Any, int]] = []
        self.told: list[Any] = []
        self.meanwhile: Callable[[], object] = lambda: None
        self.thread, self.assignment = make_thread(), Assignment(7)
        self.assignment.state = TopicPartitionState(None)
        self.assignment.state.seek(7)
        self.ends = self.thread._ends_of(self.assignment)
        self.ends._tell = self.told.append
        self.ends.take({AT: self.piece(3, 4, epochs=((3, 1),))})
        self.fetched: dict[Any, Any] = {AT: self.piece(5, 6, epochs=((5, 2),))}
        monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", self._fetch)
        subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=self.assignment))
        self.consumer = SimpleNamespace(_subscription=subscription, _client=None)

    @staticmethod
    def piece(*offsets: int, epochs: tuple[tuple[int, int], ...]) -> Piece:
        found = Piece(record(offset) for offset in offsets)
        found.epochs = epochs
        return found

    async def _fetch(self, *_: object) -> dict[Any, Any]:
        return dict(self.fetched)

    async def _ends(self, _client: object, epochs: dict[Any, int]) -> dict[Any, int]:
        self.asked.append(epochs)
        await asyncio.sleep(0)
        self.meanwhile()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {AT: answer} if answer else {}

    async def read(self) -> list[int]:
        return [one.offset for one in (await self.thread._fetch_records(self.consumer)).get(AT, [])]


@pytest.mark.parametrize("end", [5, None])
async def test_what_another_leader_wrote_is_handed_out_when_the_log_has_what_was_read_before(
    monkeypatch: pytest.MonkeyPatch, end: int | None
) -> None:
    under_test = Fetching(monkeypatch, end)

    assert (await under_test.read(), under_test.asked, under_test.told) == ([5, 6], [{AT: 1}], [])
    assert under_test.thread.runs == {TP("events", 0): (Run(3, 4, 1), Run(5, 6, 2))}


async def test_a_log_whose_former_epoch_ends_before_what_was_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fetch has failed, and it is long enough: nothing else tells. The last record is looked at again before."""
    under_test = Fetching(monkeypatch, 4, 4)
    first = await under_test.read(), under_test.told[:], under_test.assignment.state.position
    under_test.fetched[AT] = under_test.piece(4, 5, 6, epochs=((4, 2),))

    assert (first, await under_test.read(), under_test.told) == (([], [], 4), [], [AT])


async def test_a_log_that_has_the_last_record_is_not_cut_whatever_its_leader_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Brokers that speak Kafka's protocol have been wrong there. A fetch may have no more than that record."""
    under_test = Fetching(monkeypatch, 4, 4)
    pieces = [
        under_test.piece(5, 6, epochs=((5, 2),)),
        under_test.piece(4, epochs=((3, 1),)),
        under_test.piece(5, 6, epochs=((5, 2),)),
    ]
    handed = []
    for under_test.fetched[AT] in pieces:
        under_test.assignment.state.seek(under_test.fetched[AT][-1].offset + 1)
        handed.append(await under_test.read())

    assert (handed, under_test.told) == ([[], [], [5, 6]], [])


async def test_a_leader_that_does_not_answer_is_asked_again_before_anything_is_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_test = Fetching(monkeypatch, NotLeaderForPartitionError(), 5)

    assert (await under_test.read(), under_test.assignment.state.position) == ([], 5)
    under_test.assignment.state.seek(7)
    assert (await under_test.read(), under_test.told) == ([5, 6], [])


async def test_a_leader_that_is_away_keeps_no_record_of_the_others_from_being_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it is asked for is fetched again: of it, or of the next one."""
    under_test = Fetching(monkeypatch, *[NotLeaderForPartitionError() for _ in range(100)])
    under_test.fetched[BESIDE] = [record(1)]
    async with asyncio.timeout(5):
        fetched = await under_test.thread._fetch_records(under_test.consumer)

    assert {tp: [one.offset for one in found] for tp, found in fetched.items()} == {BESIDE: [1]}
    assert (under_test.assignment.state.position, under_test.told) == (5, [])


async def test_a_leader_that_keeps_its_answer_keeps_nobody_waiting_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_ANSWER_S", 0.01)
    under_test = Fetching(monkeypatch)
    monkeypatch.setattr(fetching, "epoch_ends", lambda *_: asyncio.Event().wait())
    async with asyncio.timeout(5):
        handed = await under_test.read()

    assert (handed, under_test.assignment.state.position, under_test.told) == ([], 5, [])


async def test_what_is_read_again_from_before_while_a_leader_is_asked_is_not_handed_out_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fetch behind it has failed meanwhile, and the last record is looked at again."""
    under_test = Fetching(monkeypatch, 5)
    asked = [("events", [(0, 7, 1)])]
    under_test.meanwhile = lambda: under_test.ends.after_failure(under_test.assignment, asked)
    first = await under_test.read()
    at = under_test.assignment.state.position
    under_test.fetched[AT] = under_test.piece(4, 5, 6, epochs=((4, 1), (5, 2)))

    assert (first, at, await under_test.read(), under_test.told) == ([], 4, [5, 6], [])


@pytest.mark.parametrize(("answer", "told"), [(4, [AT]), (5, []), (None, []), (NotLeaderForPartitionError(), [])])
async def test_a_log_that_ends_just_in_front_of_the_last_record_is_asked_for_its_epoch(
    monkeypatch: pytest.MonkeyPatch, answer: Any, told: list[Any]
) -> None:
    """It is as long as what is asked for: nobody says that it is too short, and nothing comes."""
    under_test = Fetching(monkeypatch, answer)
    under_test.fetched = {}
    monkeypatch.setattr(log_ends, "_SETTLE_S", 0.0)
    asked = [("events", [(0, 7, 1)])], [("events", [(0, 4, 1)])]
    under_test.ends.after_failure(under_test.assignment, asked[0])
    nothing_yet = await under_test.read(), under_test.asked[:]
    under_test.ends.after_fetch(under_test.assignment, asked[1])

    assert (nothing_yet, await under_test.read(), under_test.told) == (([], []), [], told)


async def test_records_are_handed_out_when_nobody_may_ask_for_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await Fetching(monkeypatch, TopicAuthorizationFailedError()).read() == [5, 6]


# --- the end of aiokafka's tasks


def started_on(coordination: Any, fetching_task: Any, synchronizer: Any) -> Any:
    """Return what stands for aiokafka's consumer with its three tasks."""
    names = ("_do_rejoin_group", "_push_error_to_user", "_send_req", "_maybe_leave_group")
    coordinator = SimpleNamespace(**dict.fromkeys(names), _coordination_task=coordination)
    steps = ("_proc_fetch_request", "_update_fetch_positions", "_invalidate_preferred_read_replica_for_node")
    more = {"_get_actions_per_node": None, "_fetch_max_wait_ms": 1500, "_fetch_task": fetching_task}
    parts = {"_coordinator": coordinator, "_client": SimpleNamespace(send=None, _sync_task=synchronizer)}
    return SimpleNamespace(**parts, _fetcher=SimpleNamespace(**dict.fromkeys(steps), **more))


@pytest.mark.parametrize("place", [0, 1, 2], ids=["coordination", "fetching", "metadata"])
async def test_the_end_of_a_task_of_aiokafka_ends_the_worker(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed: list[BaseException] = []
    error = KafkaError("Unexpected error during data retrieval")

    class App:
        async def crash(self, reason: BaseException) -> None:
            crashed.append(reason)

    async def ends() -> None:
        raise error

    async def nothing(_self: Any) -> None:
        """Nothing is started here."""

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_start", nothing)
    thread = make_thread()
    thread.app, thread.parent_loop = cast("Any", App()), asyncio.get_running_loop()
    tasks = [asyncio.ensure_future(ends() if number == place else nothing(None)) for number in range(3)]
    thread._consumer = started_on(*tasks)
    await thread.on_start()
    await eventually_async(lambda: crashed == [error])


class Connection:
    """Stands for aiokafka's to a broker that answers nothing."""

    def __init__(self) -> None:
        self.is_open = True
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connected(self) -> bool:
        return self.is_open

    def send(self, _request: object, **_more: object) -> asyncio.Future[Any]:
        return self.answer

    def close(self, **_reason: object) -> None:
        self.is_open = False


async def test_two_requests_that_go_unanswered_at_one_time_are_both_to_be_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(_self: Any) -> None:
        """Nothing is started here."""

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_start", nothing)
    client, connection = AIOKafkaClient(), Connection()
    client._conns[1, ConnectionGroup.DEFAULT] = connection
    thread, task = make_thread(), asyncio.ensure_future(nothing(None))
    thread._consumer = started_on(task, task, task)
    client._sync_task = task
    thread._consumer._client = client
    await thread.on_start()

    async def ask_twice() -> None:
        with pytest.raises(RequestTimedOutError):
            await client.send(1, MetadataRequest([]))
        await client.send(1, MetadataRequest([]))

    asking = asyncio.gather(ask_twice(), client.send(1, MetadataRequest([])), return_exceptions=True)
    asyncio.get_running_loop().call_later(0, connection.answer.set_exception, TimeoutError())

    assert [type(error) for error in await asking] == [NodeNotReadyError, KafkaConnectionError]
    assert KafkaConnectionError.retriable


def test_who_waits_for_records_does_not_hear_that_fetching_has_ended() -> None:
    assert "_fetch_task" not in inspect.getsource(fetcher.Fetcher.fetched_records)
    assert 'KafkaError("Unexpected error during data retrieval") from exc' in inspect.getsource(
        fetcher.Fetcher._fetch_requests_routine
    )


# --- header names


class BrokenName(str):
    """A header name that becomes bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, _encoding: str = "utf-8", _errors: str = "strict") -> bytes:
        return BROKEN


def batch(base: int, names: list[str], codec: int = 0, epoch: int = 0) -> bytes:
    """Return a batch of one record per header name."""
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, -1, 100_000)
    for offset, name in enumerate(names):
        builder.append(offset, 1000, b"k", b"v", [(name, b"h")])
    raw = bytearray(builder.build())
    raw[:8] = base.to_bytes(8, "big")
    raw[12:16] = epoch.to_bytes(4, "big", signed=True)
    return bytes(raw)


def read(raw: bytes, offset: int) -> list[tuple[int, str]]:
    records = TolerantPartitionRecords(AT, KeptRecords(raw), [], offset, None, None, False, 1)
    return [(found.offset, found.headers[0][0]) for found in records]


@pytest.mark.parametrize("codec", [0, _DefaultRecordBatchBuilderPy.CODEC_LZ4])
def test_every_record_is_read_once_also_with_a_header_name_that_is_not_utf_8(codec: int) -> None:
    raw = batch(0, ["a", "b"]) + batch(2, ["c", BrokenName("x"), "d"], codec) + batch(5, ["e", BrokenName("x")])

    assert read(raw, 1) == [
        (1, "b"), (2, "c"), (3, "\udcffname"), (4, "d"), (5, "e"), (6, "\udcffname"),
    ]  # fmt: skip


def test_a_half_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    raw = batch(0, [BrokenName("x")]) + batch(1, ["a"])[:-3]

    assert read(raw, 0) == [(0, "\udcffname")]


def test_the_parsers_are_in_place_once_a_consumer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", unpacking._MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", unpacking._PartitionRecords)
    monkeypatch.setattr(fetcher, "FetchResult", unpacking._FetchResult)
    fetching._mend_fetcher()

    assert (fetcher.MemoryRecords, fetcher.PartitionRecords) == (KeptRecords, TolerantPartitionRecords)
    assert fetcher.FetchResult is PiecewiseFetchResult


def make_result(records: int, assignment: Assignment) -> PiecewiseFetchResult:
    raw = KeptRecords(batch(0, ["a"] * records))
    parsed = TolerantPartitionRecords(AT, raw, [], 0, None, None, False, 1)
    return PiecewiseFetchResult(AT, assignment=assignment, partition_records=parsed, backoff=0)


def test_a_fetch_is_handed_out_in_pieces_and_nothing_of_it_is_lost() -> None:
    assignment = at_the_beginning()
    result = make_result(250, assignment)
    pieces = []
    while result.has_more():
        pieces.append([found.offset for found in result.getall()])

    assert [len(piece) for piece in pieces] == [96, 96, 58]
    assert ([offset for piece in pieces for offset in piece], assignment.state.position) == (list(range(250)), 250)


@pytest.mark.parametrize("last", [["a"], [BrokenName("x")]])
def test_every_piece_of_a_fetch_has_the_epochs_that_it_was_written_under(last: list[str]) -> None:
    raw = (
        batch(0, ["a"] * 90, epoch=3)
        + batch(90, ["a"] * 60, epoch=3)
        + batch(150, last, epoch=5)
        + batch(151, ["a"])[:-1]
    )
    parsed = TolerantPartitionRecords(AT, KeptRecords(raw), [], 0, None, None, False, 1)
    result = PiecewiseFetchResult(AT, assignment=at_the_beginning(), partition_records=parsed, backoff=0)

    assert [(len(piece := result.getall()), piece.epochs[:2]) for _ in range(2)] == [
        (96, ((0, 3), (150, 5))), (55, ((0, 3), (150, 5))),
    ]  # fmt: skip


def test_batches_without_an_epoch_have_none() -> None:
    parsed = TolerantPartitionRecords(AT, KeptRecords(batch(0, ["a"], epoch=-1)), [], 0, None, None, False, 1)
    result = PiecewiseFetchResult(AT, assignment=at_the_beginning(), partition_records=parsed, backoff=0)

    assert result.getall().epochs == ()


# --- a fetch that waits


def make_fetcher(records: dict[TopicPartition, Any]) -> Any:
    """The fetcher of aiokafka, as far as handing out records goes."""
    made: Any = fetcher.Fetcher.__new__(fetcher.Fetcher)
    made._subscriptions = SimpleNamespace(reassignment_in_progress=False, is_assigned=lambda _tp: True)
    made._records, made._fetch_waiters = records, set()
    made._loop, made._closed, made._wait_consume_future = asyncio.get_running_loop(), False, None
    return made


async def test_a_fetch_that_waits_hands_out_what_it_holds_when_there_is_room_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without news of the broker, which is all that aiokafka waits for."""
    monkeypatch.setattr(fetcher, "FetchResult", PiecewiseFetchResult)
    assignment = at_the_beginning()
    made = make_fetcher({AT: make_result(1, assignment)})
    thread = make_thread()
    thread._consumer, thread.thread_loop = SimpleNamespace(_fetcher=made), asyncio.get_running_loop()
    consumer = Bundling(None)
    consumer._active_partitions, consumer._buffered_partitions = {faust_types.TP("events", 1)}, {faust_types.TP(*AT)}
    consumer._thread, consumer._has_room, consumer._is_fetching = thread, asyncio.Event(), True
    waiting = asyncio.ensure_future(made.fetched_records(consumer._active_partitions, timeout=60))
    await eventually_async(lambda: bool(made._fetch_waiters))

    consumer.on_buffer_drop(faust_types.TP(*AT))

    assert [one.offset for one in (await asyncio.wait_for(waiting, 5))[AT]] == [0]


async def test_a_fetch_of_an_earlier_assignment_takes_no_records_of_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Faust gives up its question at a rebalance, and the answer would be nobody's."""
    monkeypatch.setattr(fetcher, "FetchResult", PiecewiseFetchResult)
    assignment = at_the_beginning()
    made = make_fetcher({})
    thread = make_thread()
    led_on: list[int] = []

    async def fetched(_thread: object, _consumer: object, *_args: object, **_options: object) -> Any:
        return await made.fetched_records({AT}, timeout=60)

    async def assigned(_thread: object, _tps: object, generation: int) -> None:
        led_on.append(generation)

    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "_fetch_records", fetched)
    monkeypatch.setattr(driver.AIOKafkaConsumerThread, "on_partitions_assigned", assigned)
    orphan = asyncio.ensure_future(
        thread._fetch_records(SimpleNamespace(_subscription=SimpleNamespace(subscription=None)))
    )
    await eventually_async(lambda: bool(made._fetch_waiters))

    await thread.on_partitions_assigned(set(), 4)
    made._records[AT] = make_result(3, assignment)
    for waiter in tuple(made._fetch_waiters):
        made._notify(waiter)

    assert await asyncio.wait_for(orphan, 5) == {}
    assert (led_on, assignment.state.position) == ([4], 0)


async def test_a_fetch_that_waits_for_a_broker_that_is_away_does_not_keep_the_thread_from_its_end() -> None:
    made = make_fetcher({})
    made._fetch_task, made._pending_tasks = asyncio.ensure_future(asyncio.sleep(60)), set()
    made._pending_tasks.add(asyncio.ensure_future(asyncio.sleep(60)))
    thread = make_thread()
    thread._consumer = SimpleNamespace(_fetcher=made)
    await asyncio.sleep(0)

    await thread.end_fetches()
    await made.close()

    assert made._fetch_task.done()


async def test_fetcher_pending_tasks() -> None:
    """What aiokafka does by itself; without it, `end_fetches` can go."""
    made = make_fetcher({})
    made._fetch_task = asyncio.ensure_future(asyncio.sleep(60))
    made._pending_tasks = {asyncio.ensure_future(asyncio.sleep(60))}
    await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        await made.close()

    assert "await self._consumer.stop()" in inspect.getsource(driver.AIOKafkaConsumerThread.on_thread_stop)


async def test_a_consumer_thread_that_has_ended_is_not_asked_to_look_again() -> None:
    thread = make_thread()
    thread._consumer, thread.thread_loop = None, asyncio.get_running_loop()

    thread.look_again()
    await asyncio.sleep(0)


def test_thread_fetch_waiters() -> None:
    source = inspect.getsource(fetcher.Fetcher.fetched_records)

    assert "waiter = self._create_fetch_waiter()" in source
    assert "self._fetch_waiters.add(fut)" in inspect.getsource(fetcher.Fetcher._create_fetch_waiter)


def test_the_broker_is_asked_with_patience_only_while_nothing_is_left_to_hand_out() -> None:
    asked: list[int] = []
    made: Any = SimpleNamespace(_fetch_max_wait_ms=1500, _records={})
    made._get_actions_per_node = lambda _assignment: asked.append(made._fetch_max_wait_ms)
    hurry(made)

    made._get_actions_per_node("assignment")
    made._records = {AT: "records"}
    made._get_actions_per_node("assignment")
    made._records = {}
    made._get_actions_per_node("assignment")

    assert (asked[0], asked[2]) == (1500, 1500)
    assert asked[1] <= 150


def test_fetcher_get_actions_per_node() -> None:
    assert "self._get_actions_per_node(assignment)" in inspect.getsource(fetcher.Fetcher._fetch_requests_routine)
    assert "self._fetch_max_wait_ms,\n" in inspect.getsource(fetcher.Fetcher._get_actions_per_node)


# --- bundles


class Bundling(BundlingConsumer):
    """A consumer without the rest of Faust's."""

    def __init__(self, read_to: int | None) -> None:
        self._read_offset = {AT: read_to}
        self.app = cast("Any", SimpleNamespace(consumer_generation_id=7))


def test_what_was_fetched_is_cut_into_bundles_that_keep_order() -> None:
    found = Bundling(None).bundled({AT: list(range(BUNDLE_RECORDS + 3)), "other": [1]})

    assert [len(piece) for piece in found[AT]] == [BUNDLE_RECORDS, 3]
    assert [offset for piece in found[AT] for offset in piece] == list(range(BUNDLE_RECORDS + 3))
    assert found["other"] == [[1]]


def stamped(offset: int) -> Any:
    return SimpleNamespace(offset=offset, timestamp=1500)


@pytest.mark.parametrize(
    ("read_to", "kept"), [(None, [4, 5, 7]), (4, [4, 5, 7]), (5, [5, 7]), (6, [7]), (7, [7]), (8, [4, 5, 7])]
)
def test_records_that_were_handed_out_already_are_left_out(read_to: int | None, kept: list[int]) -> None:
    """Above the last one Faust drops the whole message itself, going by its offset."""
    message = Bundling(read_to)._to_message(AT, [stamped(4), stamped(5), stamped(7)])

    assert [one.offset for one in message.records] == kept
    assert (message.offset, message.generation, message.generation_id) == (7, 7, 7)


async def test_faust_keeps_no_account_of_gaps() -> None:
    await Bundling(None)._add_gap(AT, 1, 1_000_000)


def test_consumer_getmany_and_drain_messages() -> None:
    getmany = inspect.getsource(faust_consumer.Consumer.getmany)
    drain = inspect.getsource(faust_consumer.Consumer._drain_messages)

    assert "records, active_partitions = await self._wait_next_records(timeout)" in getmany
    assert "self.scheduler.iterate(records)" in getmany
    assert "to_message = self._to_message" in getmany
    assert "if r_offset is None or offset >= r_offset:" in drain
    assert "await self._add_gap(tp, r_offset + 1, offset)" in drain
    assert "set_read_offset(tp, offset)" in drain
    assert "self._read_offset = defaultdict(lambda: None)" in inspect.getsource(faust_consumer.Consumer.__init__)
