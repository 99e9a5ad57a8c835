"""The view of the results on a Kafka protocol: following, looking up old outcomes, and Kafka going away."""

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from contracts.codec import Position, Record, encode_event, encode_json, outcome_headers
from contracts.envelope import Event, result_id
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.payloads import DUPLICATE_TYPE, RESULT_TYPE, DuplicateMarker
from contracts.repetition import digest_of
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.egress import fetch, results
from gateways.egress.fetch import Fetcher
from gateways.egress.outcomes import Accepted, Outcome, Place
from gateways.egress.reading import reader_config
from gateways.egress.results import ResultsView
from gateways.egress.tail import Tail
from producers.embedded import EmbeddedBroker
from producers.producer import KafkaProducer
from tests.support import eventually_async

pytestmark = pytest.mark.embedded


class Log:
    """Topics of one test, and a producer for them."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.kafka = kafka.model_copy(update={"embedded": True})
        prefix = f"results-{uuid.uuid4().hex[:8]}"
        self.results = f"{prefix}.results.v1"
        self.own = f"{prefix}.own.v1"
        self.events = f"{prefix}.events.v1"
        self.producer = KafkaProducer(kafka, ProducerSettings(), client_id="test", delivery_timeout_s=10)

    async def event(self, event_id: str, owner: str = "") -> tuple[Event, Position]:
        event = Event(id=event_id, source="crm", type="t", data=b"{}", extensions={"owner": owner} if owner else {})
        record = Record(self.events, b"key", b"{}", encode_event(event))
        return event, Position(*await self.producer.produce(record))

    async def outcome(self, event: Event, position: Position, topic: str | None = None) -> None:
        headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00.000Z", "app", position)
        await self.producer.produce(Record(topic or self.results, None, b'{"output":1}', headers, position.partition))

    async def repetition(self, event: Event, position: Position, first: Event, first_position: Position) -> None:
        """Write the marker of an event that repeats another one."""
        marker = DuplicateMarker(
            event_id=event.id,
            source=event.source,
            type=event.type,
            first_event_id=first.id,
            completed_at="2026-01-01T00:00:00.000Z",
            **first_position._asdict(),
        )
        headers = outcome_headers(event, DUPLICATE_TYPE, marker.completed_at, "app", position)
        await self.producer.produce(Record(self.results, None, encode_json(marker), headers, position.partition))

    def view(self, *, cache_bytes: int = 2**20, retention_s: float = 3600.0) -> ResultsView:
        return ResultsView(
            self.kafka, (self.results, self.own), (self.events,), cache_bytes=cache_bytes, retention_s=retention_s
        )


@pytest.fixture
async def log(embedded_broker: EmbeddedBroker) -> AsyncIterator[Log]:
    log = Log(KafkaSettings.model_validate({"bootstrap_servers": embedded_broker.bootstrap}))
    await log.producer.start()
    yield log
    await log.producer.aclose()


@pytest.fixture
def view(log: Log) -> Iterator[ResultsView]:
    view = log.view()
    view.start()
    yield view
    view.close()


async def _caught_up(view: ResultsView) -> None:
    await eventually_async(lambda: view.is_caught_up)


async def test_an_outcome_that_arrives_is_found(log: Log, view: ResultsView) -> None:
    event, position = await log.event("e1")
    await _caught_up(view)
    assert await view.outcome_of("crm", "e1", position) is None

    await log.outcome(event, position)

    found = await eventually_async(lambda: view.outcome_of("crm", "e1", position), within_s=15)
    assert found
    assert (found.event_id, found.value) == ("e1", b'{"output":1}')


async def test_an_outcome_wakes_whoever_waits_once_it_can_be_found(log: Log) -> None:
    heard: list[bool] = []
    mine = ResultsView(
        log.kafka,
        (log.results,),
        (log.events,),
        cache_bytes=2**20,
        retention_s=3600.0,
        on_outcome=lambda outcome: heard.append(mine._cache.get(outcome.source, outcome.event_id) == outcome),
    )
    mine.start()
    try:
        await _caught_up(mine)
        await log.outcome(*await log.event("e1"))

        assert await eventually_async(lambda: heard, within_s=15) == [True]
    finally:
        mine.close()


async def test_outcomes_from_before_the_start_are_found(log: Log) -> None:
    event, position = await log.event("e1")
    await log.outcome(event, position)
    view = log.view()
    view.start()
    try:
        found = await eventually_async(lambda: view.outcome_of("crm", "e1", position))
        assert found
    finally:
        view.close()


async def test_an_outcome_on_a_routes_own_topic_is_found(log: Log, view: ResultsView) -> None:
    event, position = await log.event("e1")
    await log.outcome(event, position, log.own)

    assert await eventually_async(lambda: view.outcome_of("crm", "e1", position), within_s=15)


async def test_an_outcome_that_is_no_longer_in_memory_is_found_by_its_position(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, position = await log.event("e1")
    await log.outcome(event, position)
    # Nothing is followed: whatever is found comes from the scan.
    view = log.view()
    try:
        assert await view.outcome_of("crm", "e1", position)
        monkeypatch.setattr(results, "scan", None)
        assert await view.outcome_of("crm", "e1", position), "the second time from memory"
    finally:
        view.close()


@pytest.mark.parametrize("is_following", [True, False])
async def test_owners_who_use_one_id_of_one_source_get_each_their_own_outcome(log: Log, *, is_following: bool) -> None:
    others, others_position = await log.event("e1", owner="shop")
    mine, position = await log.event("e1", owner="crm")
    await log.outcome(others, others_position)
    view = log.view()
    if is_following:
        view.start()
    try:
        assert await eventually_async(lambda: view.outcome_of("crm", "e1", others_position, "shop"), within_s=15)
        assert await view.outcome_of("crm", "e1", position, "crm") is None

        await log.outcome(mine, position)
        found = await eventually_async(lambda: view.outcome_of("crm", "e1", position, "crm"))
    finally:
        view.close()

    assert found is not None
    assert found.owner == "crm"


async def test_an_outcome_is_looked_up_where_the_index_has_another_owners(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, position = await log.event("e1", owner="crm")
    await log.outcome(mine, position)
    others = Outcome(result_id("crm", "e1"), "e1", "crm", "shop", RESULT_TYPE, b"{}", 1)
    index = SimpleNamespace(outcome=AsyncMock(return_value=others), knows_since=lambda _: True, close=lambda: None)
    view = log.view()
    monkeypatch.setattr(view, "_archive", index)
    try:
        found = await view.outcome_of("crm", "e1", position, "crm")
    finally:
        view.close()

    assert found is not None
    assert found.owner == "crm"


async def test_a_look_up_without_a_finding_is_not_repeated_at_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    event, position = await log.event("e1")
    view = log.view()
    try:
        assert await view.outcome_of("crm", "e1", position) is None
        monkeypatch.setattr(results, "scan", None)
        assert await view.outcome_of("crm", "e1", position) is None
        monkeypatch.undo()

        await log.outcome(event, position)
        assert await eventually_async(lambda: view.outcome_of("crm", "e1", position))
    finally:
        view.close()


async def test_a_look_up_that_runs_out_of_time_goes_on_when_asked_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    event, position = await log.event("e1")
    for number in range(5):
        other = Event(id=f"other{number}", source="crm", type="t", data=b"")
        await log.outcome(other, position)
    await log.outcome(event, position)
    monkeypatch.setattr("gateways.egress.scan._POLL_RECORDS", 1)
    monkeypatch.setattr(results, "SCAN_LIMIT_S", 0.001)
    view = log.view()

    async def ask() -> object:
        try:
            return await view.outcome_of("crm", "e1", position)
        except Busy:
            monkeypatch.setattr(results, "SCAN_LIMIT_S", 0.3)
            return None

    try:
        with pytest.raises(Busy):
            await view.outcome_of("crm", "e1", position)
        assert await eventually_async(ask)
    finally:
        view.close()


async def test_an_event_older_than_the_retention_is_unknown(log: Log) -> None:
    view = log.view(retention_s=10)
    position = Position(log.events, 0, 0, int((time.time() - 11) * 1000))
    try:
        with pytest.raises(UnknownResult):
            await view.outcome_of("crm", "e1", position)
    finally:
        view.close()


async def test_events_of_a_caller_are_known_by_id_also_from_other_gateways(log: Log, view: ResultsView) -> None:
    await _caught_up(view)
    event, position = await log.event("e1", owner="crm")

    async def known() -> bool:
        try:
            return await view.accepted("crm", "e1", None) == Accepted("crm", position)
        except (UnknownResult, Busy):
            return False

    assert await eventually_async(known, within_s=15)
    await log.outcome(event, position)

    async def answered() -> bool:
        found = await view.accepted("crm", "e1", "crm")
        return await view.outcome_of("crm", "e1", found.position, "crm") is not None

    assert await eventually_async(answered, within_s=15)
    await _caught_up(view)
    with pytest.raises(UnknownResult):
        await view.accepted("billing", "e1", None)


async def test_an_unknown_id_is_unknown_only_when_everything_was_read(log: Log) -> None:
    view = log.view()
    with pytest.raises(LogUnavailable):
        await view.accepted("crm", "e1", None)
    view.start()
    try:
        await _caught_up(view)
        with pytest.raises(UnknownResult):
            await view.accepted("crm", "e1", None)
    finally:
        view.close()


async def test_an_event_that_was_not_read_yet_is_not_called_unknown(
    log: Log, view: ResultsView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a break nobody noticed: everything had been read, and more has come since."""
    await _caught_up(view)
    go_on, take = threading.Event(), Tail._take

    def take_late(tail: Tail, message: Any) -> None:
        go_on.wait(20)
        take(tail, message)

    monkeypatch.setattr(Tail, "_take", take_late)
    monkeypatch.setattr(results, "_READ_WITHIN_S", 0.2)
    try:
        _, position = await log.event("e1", owner="crm")
        with pytest.raises(Busy):
            await view.accepted("crm", "e1", None)
    finally:
        go_on.set()

    async def answer(event_id: str) -> Accepted | str | None:
        try:
            return await view.accepted("crm", event_id, None)
        except UnknownResult:
            return "unknown"
        except Busy:
            return None

    assert await eventually_async(lambda: answer("e1")) == Accepted("crm", position)
    assert await eventually_async(lambda: answer("e2")) == "unknown"


async def test_what_an_event_was_is_read_from_its_record_and_asked_for_once(
    log: Log, view: ResultsView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that named no id when it was sent, and of one that only the index or an outcome tells of."""
    _, position = await log.event("e1", owner="crm")
    await _caught_up(view)
    accepted = Accepted("crm", position)

    digest = await view.digest("crm", "e1", accepted)
    gone = await view.digest("crm", "e2", Accepted("crm", position._replace(offset=position.offset + 7)))
    another = await view.digest("crm", "e3", Accepted("crm", position._replace(timestamp_ms=1)))

    assert (digest, gone, another) == (digest_of("crm", "crm", b"{}"), b"", b"")
    monkeypatch.setattr(view._fetcher, "fetch", None)
    assert await view.digest("crm", "e1", await view.accepted("crm", "e1", "crm")) == digest


async def test_too_many_look_ups_at_a_time_are_refused(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    view = log.view()
    monkeypatch.setattr(results, "MAX_SCANS", 0)
    try:
        with pytest.raises(Busy):
            await view.outcome_of("crm", "e1", Position(log.events, 0, 0, int(time.time() * 1000)))
    finally:
        view.close()


async def test_look_ups_of_what_events_were_take_no_room_from_those_of_outcomes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a topic that this gateway may not read each takes seconds."""
    view = log.view()
    refused = LogUnavailable("not allowed")
    is_let_go = threading.Event()

    def wait(*_args: object) -> None:
        is_let_go.wait(10)
        raise refused

    monkeypatch.setattr(view._fetcher, "fetch", wait)
    accepted = Accepted("crm", Position(log.events, 0, 0, 1))
    asked = [asyncio.ensure_future(view.digest("crm", f"e{n}", accepted)) for n in range(results.MAX_FETCHES)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await view.digest("crm", "e9", accepted)
        outcome = await view.outcome_of("crm", "e1", Position(log.events, 0, 0, int(time.time() * 1000)))
        is_let_go.set()

        assert outcome is None
        assert await asyncio.gather(*asked, return_exceptions=True) == [refused] * results.MAX_FETCHES
    finally:
        is_let_go.set()
        view.close()


async def test_a_look_up_that_is_under_way_at_the_end_leaves_no_client_behind(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, position = await log.event("e1", owner="crm")
    fetcher = Fetcher(reader_config(log.kafka, "test"))
    read = fetch._read

    def read_late(*args: Any) -> Any:
        found = read(*args)
        fetcher.close()
        return found

    monkeypatch.setattr(fetch, "_read", read_late)

    found = await asyncio.to_thread(fetcher.fetch, Place(position.topic, position.partition, position.offset), 5.0)

    assert found is not None
    assert fetcher._idle.empty()


async def test_with_kafka_away_nothing_is_claimed() -> None:
    with EmbeddedBroker() as broker:
        kafka = KafkaSettings.model_validate({"bootstrap_servers": broker.bootstrap})
        view = Log(kafka).view()
        view.start()
        try:
            await _caught_up(view)
            broker.stop()
            await eventually_async(lambda: not view.is_caught_up, within_s=15)

            position = Position("t", 0, 0, int(time.time() * 1000))
            with pytest.raises(LogUnavailable):
                await view.outcome_of("crm", "e1", position)
            with pytest.raises(LogUnavailable):
                await view.accepted("crm", "e1", None)
            assert view.is_alive
        finally:
            view.close()


@pytest.mark.parametrize("event_id", ["first", "made-up"])
async def test_who_asks_for_a_repetition_gets_the_outcome_of_the_first(
    log: Log, view: ResultsView, event_id: str
) -> None:
    first, first_position = await log.event("first")
    again, position = await log.event(event_id)
    await log.repetition(again, position, first, first_position)
    await eventually_async(lambda: view._cache.repetition(position))
    # The marker is no outcome, of either of them.
    assert await view.outcome_of("crm", event_id, position) is None

    await log.outcome(first, first_position)

    found = await eventually_async(lambda: view.outcome_of("crm", event_id, position))
    assert found is not None
    assert found.event_id == "first"


@pytest.mark.parametrize("event_id", ["first", "made-up"])
async def test_a_look_up_finds_the_first_of_a_repetition(log: Log, view: ResultsView, event_id: str) -> None:
    """The view has forgotten both, and the outcome lies before what the repetition's ticket says."""
    first, first_position = await log.event("first")
    await log.outcome(first, first_position)
    again, position = await log.event(event_id)
    await log.repetition(again, position, first, first_position)
    await eventually_async(lambda: view._cache.repetition(position))
    view._cache._repetitions.clear()
    view._cache._outcomes.clear()
    view._cache.dropped_until_ms = position.timestamp_ms

    found = await view.outcome_of("crm", event_id, position)

    assert found is not None
    assert found.event_id == "first"


@pytest.mark.parametrize("forgets", ["at a restart", "among many"])
async def test_a_repetition_under_another_id_is_looked_up_where_the_index_has_everything(
    log: Log, monkeypatch: pytest.MonkeyPatch, forgets: str
) -> None:
    """An index has no markers of repetitions: that it has no outcome under the id says nothing."""
    first, first_position = await log.event("first")
    await log.outcome(first, first_position)
    again, position = await log.event("made-up")
    await log.repetition(again, position, first, first_position)
    index = SimpleNamespace(
        outcome=AsyncMock(return_value=None), knows_since=lambda _: True, start=lambda: None, close=lambda: None
    )
    view = log.view()
    monkeypatch.setattr(view, "_archive", index)
    if forgets == "among many":
        view.start()
        await eventually_async(lambda: view._cache.repetition(position), within_s=15)
        view._cache._repetitions.clear()
        view._cache.dropped_until_ms = view._cache.repetitions_dropped_until_ms = position.timestamp_ms
    try:
        found = await view.outcome_of("crm", "made-up", position)
    finally:
        view.close()

    assert found is not None
    assert found.event_id == "first"


async def test_the_index_is_believed_where_no_repetition_can_be_unknown(
    log: Log, view: ResultsView, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SimpleNamespace(outcome=AsyncMock(return_value=None), knows_since=lambda _: True, close=lambda: None)
    monkeypatch.setattr(view, "_archive", index)
    monkeypatch.setattr(results, "scan", lambda *_: pytest.fail("looked up"))
    await _caught_up(view)
    webhook, caller = await log.event("e1"), await log.event("e2", "crm")

    view._cache.dropped_until_ms = webhook[1].timestamp_ms
    assert await view.outcome_of("crm", "e1", webhook[1]) is None
    # What repeats a caller's event has its id.
    view._cache.dropped_until_ms = view._cache.repetitions_dropped_until_ms = caller[1].timestamp_ms
    assert await view.outcome_of("crm", "e2", caller[1], "crm") is None
