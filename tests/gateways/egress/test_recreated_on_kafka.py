"""Topics that are deleted and made anew under the readers that belong to no group, on real Kafka.

The new log may be longer than the former one before the reader comes to it: at the offset that it had it finds a
record, and nothing tells it what lies before that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from contracts.codec import Position, Record, encode_event, encode_json, outcome_headers
from contracts.deltas import delta_headers, delta_record
from contracts.envelope import REPLY_TO, Event, result_id
from contracts.errors import PenstockError
from contracts.payloads import RESULT_TYPE, Delta, EndpointState
from contracts.settings import KafkaSettings, ProducerSettings, ResultsViewSettings
from gateways.egress.board import KafkaBoard
from gateways.egress.deltas_tail import Arrival, DeltasTail
from gateways.egress.outcomes import Outcome
from gateways.egress.reading import LogIds, reader_config
from gateways.egress.replies import Replies
from gateways.egress.results import ResultsView
from producers.producer import KafkaProducer
from tests.kafka.worker_lab import recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

PARTITION = 1
# Of the former log.
RECORDS = 5
LIMIT_S = 30.0


class Site:
    """Topics, and a producer that is made anew with them: a former one knows of no partitions for a while."""

    def __init__(self, kafka: KafkaLab) -> None:
        self._lab = kafka
        self.kafka = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
        self.results, self.events, self.deltas, self.replies, self.endpoints = kafka.create(
            "results", "events", "deltas", "replies", "endpoints"
        )
        self.producer: KafkaProducer | None = None

    async def produce(self, *records: Record) -> None:
        if self.producer is None:
            self.producer = KafkaProducer(self.kafka, ProducerSettings(), client_id="test", delivery_timeout_s=30)
            await self.producer.start()
        await asyncio.gather(*(self.producer.produce(one) for one in records))

    async def put(self, record: Record) -> None:
        await self.produce(record)

    async def recreate(self, topic: str) -> None:
        await self.aclose()
        await asyncio.to_thread(recreate, self._lab, topic, 4)

    async def aclose(self) -> None:
        producer, self.producer = self.producer, None
        if producer is not None:
            await producer.aclose()

    def outcome(self, topic: str, event_id: str, *headers: tuple[str, bytes | None]) -> Record:
        event = Event(id=event_id, source="crm", type="t", data=b"")
        made = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00.000Z", "app", self.position())
        return Record(topic, None, b"{}", [*made, *headers], PARTITION)

    def event(self, event_id: str) -> Record:
        event = Event(id=event_id, source="crm", type="t", data=b"{}", extensions={"owner": "crm"})
        return Record(self.events, None, b"{}", encode_event(event), PARTITION)

    def position(self) -> Position:
        return Position(self.events, PARTITION, 0, int(time.time() * 1000))

    def view(self, path: Path | None = None, on_outcome: Callable[[Outcome], None] = lambda _: None) -> ResultsView:
        view = ResultsView(
            self.kafka,
            (self.results,),
            (self.events,),
            cache_bytes=2**20,
            retention_s=86_400.0,
            on_outcome=on_outcome,
            view=ResultsViewSettings(path=path, max_bytes=16 * 2**20) if path else None,
        )
        view.start()
        return view


@pytest.fixture
async def site(kafka: KafkaLab) -> AsyncIterator[Site]:
    site = Site(kafka)
    yield site
    await site.aclose()


async def test_outcomes_of_a_result_topic_that_was_made_anew_are_told_to_whoever_waits_or_asks(site: Site) -> None:
    told: list[str] = []
    view = site.view(on_outcome=lambda outcome: told.append(outcome.event_id))
    try:
        await site.produce(*(site.outcome(site.results, f"former{number}") for number in range(RECORDS)))
        await eventually_async(lambda: len(told) == RECORDS and view._tail._log_ids.ids, LIMIT_S)
        position = site.position()

        await site.recreate(site.results)
        ids = [f"e{number}" for number in range(3 * RECORDS)]
        await site.produce(*(site.outcome(site.results, event_id) for event_id in ids))

        await eventually_async(lambda: set(told) >= set(ids), LIMIT_S)
        assert await view.outcome_of("crm", "e0", position)
        await eventually_async(lambda: view.is_caught_up, LIMIT_S)
        assert await view.outcome_of("crm", "unknown", position) is None
    finally:
        view.close()


async def test_a_look_up_that_found_nothing_begins_again_when_the_topic_was_made_anew(site: Site) -> None:
    view = site.view()
    old = site.position()._replace(timestamp_ms=site.position().timestamp_ms - 3_600_000)
    try:
        await site.produce(*(site.outcome(site.results, f"former{number}") for number in range(RECORDS)))
        await eventually_async(lambda: view._cache.get("crm", f"former{RECORDS - 1}"), LIMIT_S)
        await eventually_async(lambda: view._tail._log_ids.ids, LIMIT_S)
        # The tail holds the start of its topic, so that it answers by itself: what is dropped from memory is looked up.
        view._cache.dropped_until_ms = old.timestamp_ms
        assert await view.outcome_of("crm", "e0", old) is None

        await site.recreate(site.results)
        ids = [f"e{number}" for number in range(3 * RECORDS)]
        await site.produce(*(site.outcome(site.results, event_id) for event_id in ids))
        await eventually_async(lambda: view._tail.logs, LIMIT_S)
        # Nothing in memory, as after many others.
        view._cache._outcomes.clear()

        async def is_found() -> bool:
            view._cache._outcomes.clear()
            return await view.outcome_of("crm", "e0", old) is not None

        await eventually_async(is_found, LIMIT_S)
    finally:
        view.close()


@pytest.mark.parametrize("is_running", [True, False])
async def test_the_index_has_everything_of_a_topic_that_was_made_anew(
    site: Site, tmp_path: Path, is_running: bool
) -> None:
    path = tmp_path / "index.sqlite"
    view = site.view(path)

    def has(event_id: str) -> bool:
        assert view._archive
        return view._archive.is_caught_up and view._archive._index.place_of(result_id("crm", event_id)) is not None

    try:
        await site.produce(*(site.outcome(site.results, f"former{number}") for number in range(RECORDS)))
        await eventually_async(lambda: has(f"former{RECORDS - 1}"), LIMIT_S)
        assert view._archive
        await eventually_async(view._archive._index.log_ids, LIMIT_S)
        if not is_running:
            view.close()
        await site.recreate(site.results)
        ids = [f"e{number}" for number in range(3 * RECORDS)]
        await site.produce(*(site.outcome(site.results, event_id) for event_id in ids))
        if not is_running:
            view = site.view(path)

        await eventually_async(lambda: all(map(has, ids)), LIMIT_S)
        assert view._archive
        found = await view._archive.outcome(result_id("crm", "e0"))
        assert found
        assert found.event_id == "e0"
    finally:
        view.close()


async def test_an_event_of_a_topic_that_was_made_anew_is_not_called_unknown_before_that_is_noticed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = site.view(tmp_path / "index.sqlite")
    archive = view._archive
    assert archive

    async def answer(event_id: str) -> str:
        try:
            await view.accepted("crm", event_id, None)
        except PenstockError as error:
            return type(error).__name__
        return "found"

    answers: list[str] = []

    async def is_answered(event_id: str, *wanted: str) -> bool:
        answers.append(await answer(event_id))
        return answers[-1] in wanted

    async def is_unknown(event_id: str) -> bool:
        return await answer(event_id) == "UnknownResult"

    try:
        await site.produce(*(site.event(f"former{number}") for number in range(RECORDS)))
        await eventually_async(lambda: view._cache.accepted("crm", f"former{RECORDS - 1}", None), LIMIT_S)
        await eventually_async(lambda: view.is_caught_up and archive.is_caught_up, LIMIT_S)
        await eventually_async(lambda: site.events in view._tail.log_ids and site.events in archive.log_ids, LIMIT_S)
        assert await answer("e0") == "UnknownResult"
        # As late as it may be noticed.
        monkeypatch.setattr(LogIds, "made_anew", lambda _: frozenset())

        await site.recreate(site.events)
        await site.produce(*(site.event(f"e{number}") for number in range(3 * RECORDS)))
        # A reader that asked while the new log was shorter was sent to its beginning by its client, and has it already.
        await eventually_async(lambda: is_answered("e0", "Busy", "found"), LIMIT_S)
        monkeypatch.undo()

        await eventually_async(lambda: is_answered("e0", "found"), LIMIT_S)
        assert "UnknownResult" not in answers
        await eventually_async(lambda: is_unknown("other"), LIMIT_S)
    finally:
        view.close()


async def test_deltas_of_a_topic_that_was_made_anew_are_handed_over_from_the_first_on(site: Site) -> None:
    wanted = result_id("crm", "e1")
    arrivals: list[Arrival] = []
    gaps: list[int] = []
    tail = DeltasTail(
        reader_config(site.kafka, "test"), site.deltas, {wanted}, arrivals.extend, lambda: gaps.append(len(arrivals))
    )

    def delta(number: int, epoch: int) -> Record:
        event = Event(id="e1", source="crm", type="t", data=b"")
        delta = Delta(event_id="e1", epoch=epoch, sequence=number, text="a")
        return delta_record(site.deltas, None, delta_headers(event, "app", site.position()), PARTITION, delta)

    tail.start()
    try:
        await eventually_async(lambda: tail.is_following, LIMIT_S)
        await site.produce(*(delta(number, 5) for number in range(1, RECORDS + 1)))
        await eventually_async(lambda: len(arrivals) == RECORDS and tail._log_ids.ids, LIMIT_S)
        arrivals.clear()
        gaps.clear()

        await site.recreate(site.deltas)
        await site.produce(*(delta(number, 6) for number in range(1, 3 * RECORDS + 1)))

        await eventually_async(lambda: {one.offset for one in arrivals} >= set(range(3 * RECORDS)), LIMIT_S)
        # What was looked up before says nothing.
        await eventually_async(lambda: gaps and tail.is_following, LIMIT_S)
    finally:
        tail.close()


async def test_the_board_shows_the_states_of_a_topic_that_was_made_anew_and_no_others(site: Site) -> None:
    board = KafkaBoard(reader_config(site.kafka, "test"), site.endpoints, site.put, "app")

    def state(name: str) -> Record:
        value = encode_json(EndpointState(name=name, status="disabled", since="2026-01-01T00:00:00.000Z", reason="x"))
        return Record(site.endpoints, name.encode(), value, [], PARTITION)

    board.start()
    try:
        assert await board.ready(LIMIT_S)
        await site.produce(*(state(f"former{number}") for number in range(RECORDS)))
        await eventually_async(lambda: len(board.states()) == RECORDS and board._log_ids.ids, LIMIT_S)

        await site.recreate(site.endpoints)
        names = {f"n{number}" for number in range(3 * RECORDS)}
        await site.produce(*(state(name) for name in sorted(names)))

        await eventually_async(lambda: board.states().keys() == names, LIMIT_S)
    finally:
        board.close()


async def test_replies_are_read_again_when_their_topic_was_made_anew_with_fewer_partitions(
    site: Site, kafka: KafkaLab
) -> None:
    found: list[Outcome] = []
    replies = Replies(reader_config(site.kafka, "test"), site.replies, found.append)
    # Of four partitions it reads the second.
    replies._instance = "1" * 32
    replies.start()
    try:
        await eventually_async(lambda: replies.address, LIMIT_S)
        former = replies.address
        # The id is known once a question was answered.
        await eventually_async(lambda: replies._log_ids.ids, LIMIT_S)

        await site.aclose()
        await asyncio.to_thread(recreate, kafka, site.replies, 1)
        await eventually_async(lambda: replies.address not in {None, former}, LIMIT_S)
        header = (f"ce_{REPLY_TO}", str(replies.address).encode())
        await site.produce(site.outcome(site.replies, "e1", header)._replace(partition=0))

        await eventually_async(lambda: [one.event_id for one in found] == ["e1"], LIMIT_S)
    finally:
        replies.close()
