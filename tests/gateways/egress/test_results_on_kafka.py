"""The view of the results on real Kafka: offsets by time, the window of the tail, and a broker that comes back."""

import time
from collections.abc import AsyncIterator

import pytest

from contracts.codec import Position, Record, outcome_headers
from contracts.envelope import Event, result_id
from contracts.errors import LogUnavailable, UnknownResult
from contracts.payloads import RESULT_TYPE
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.egress import tail
from gateways.egress.results import ResultsView
from gateways.egress.scan import Wanted, scan
from producers.producer import KafkaProducer
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITION = 1
HOUR_MS = 3_600_000


class Log:
    """One result topic, and outcomes on it with the timestamps of our choice."""

    def __init__(self, kafka: KafkaLab) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
        self.results, self.events = kafka.create("results", "events")
        self.producer = KafkaProducer(self.kafka, ProducerSettings(), client_id="test", delivery_timeout_s=30)

    async def outcome(self, event_id: str, age_ms: int = 0, owner: str = "") -> Position:
        at_ms = int(time.time() * 1000) - age_ms
        extensions = {"owner": owner} if owner else {}
        event = Event(id=event_id, source="crm", type="t", data=b"", extensions=extensions)
        position = Position(self.events, PARTITION, 0, at_ms)
        headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00.000Z", "app", position)
        await self.producer.produce(Record(self.results, None, b"{}", headers, PARTITION, at_ms))
        return position

    def view(self) -> ResultsView:
        return ResultsView(self.kafka, (self.results,), (self.events,), cache_bytes=2**20, retention_s=86_400.0)


@pytest.fixture
async def log(kafka: KafkaLab) -> AsyncIterator[Log]:
    log = Log(kafka)
    await log.producer.start()
    yield log
    await log.producer.aclose()


async def test_a_scan_starts_at_the_tickets_time(log: Log) -> None:
    for number in range(20):
        await log.outcome(f"old{number}", age_ms=10 * HOUR_MS)
    position = await log.outcome("e1", age_ms=HOUR_MS)
    view = log.view()
    try:
        found = await view.outcome_of("crm", "e1", position)
        assert found
        older = Wanted(result_id("crm", "old0"), position)
        unread = scan(view._config, (log.results,), older, {}, 5.0)
        assert (unread.outcome, unread.next_offsets, unread.is_complete) == (None, {log.results: 21}, True)
        assert scan(
            view._config, (log.results,), older._replace(position=position._replace(timestamp_ms=0)), {}, 5.0
        ).outcome
    finally:
        view.close()


async def test_what_is_older_than_the_window_is_looked_up_and_not_held_to_be_pending(log: Log) -> None:
    old = await log.outcome("old", age_ms=2 * HOUR_MS)
    fresh = await log.outcome("fresh", owner="crm")
    view = log.view()
    view.start()
    try:
        await eventually_async(lambda: view.is_caught_up)

        assert view._cache.get("crm", "old") is None
        assert view._cache.get("crm", "fresh", "crm")
        assert await view.outcome_of("crm", "old", old)
        assert await view.outcome_of("crm", "fresh", fresh, "crm")
        # Known by id from its outcome alone, though this view never saw the event.
        assert (await view.accepted("crm", "fresh", None)).position == fresh
    finally:
        view.close()


async def test_the_tail_starts_at_most_so_many_records_back(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MAX_RECORDS_PER_PARTITION", 3)
    positions = [await log.outcome(f"e{number}") for number in range(5)]
    view = log.view()
    view.start()
    try:
        await eventually_async(lambda: view.is_caught_up)

        assert [view._cache.get("crm", f"e{number}") is not None for number in range(5)] == [
            False,
            False,
            True,
            True,
            True,
        ]
        assert await view.outcome_of("crm", "e0", positions[0]), "found by a look-up"
    finally:
        view.close()


@pytest.mark.long
async def test_the_view_goes_on_when_the_broker_comes_back(log: Log, kafka: KafkaLab) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("the broker is not ours to restart")
    view = log.view()
    view.start()
    try:
        await eventually_async(lambda: view.is_caught_up)
        kafka.broker.stop()
        await eventually_async(lambda: not view.is_caught_up, within_s=20)
        with pytest.raises(LogUnavailable):
            await view.accepted("crm", "e1", None)

        kafka.broker.start()
        position = await log.outcome("e1")

        async def answered() -> bool:
            try:
                return await view.outcome_of("crm", "e1", position) is not None
            except LogUnavailable:
                return False

        assert await eventually_async(answered, within_s=40)
        await eventually_async(lambda: view.is_caught_up, within_s=20)
        with pytest.raises(UnknownResult):
            await view.accepted("crm", "unknown", None)
    finally:
        view.close()
