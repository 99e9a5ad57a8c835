"""Old outcomes by id on real Kafka: found without a ticket, after restarts, and never the wrong one."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.codec import Record, encode_event
from contracts.envelope import Event, result_id
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.settings import ProducerSettings, ResultsViewSettings
from gateways.egress import indexing, outcomes, results
from gateways.egress.results import ResultsView
from producers.fenced import FencedProducer
from tests.gateways.egress.test_results_on_kafka import HOUR_MS, PARTITION, Log
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
async def log(kafka: KafkaLab) -> AsyncIterator[Log]:
    log = Log(kafka)
    await log.producer.start()
    yield log
    await log.producer.aclose()


def open_view(log: Log, path: Path | None) -> ResultsView:
    """Return a view that follows, with an index when there is a path."""
    view = ResultsView(
        log.kafka,
        (log.results,),
        (log.events,),
        cache_bytes=2**20,
        retention_s=86_400.0,
        view=ResultsViewSettings(path=path, max_bytes=16 * 2**20),
    )
    view.start()
    return view


async def found_by_id(view: ResultsView, event_id: str) -> bool:
    """Ask as a caller does that has no ticket."""
    accepted = await view.accepted("crm", event_id, None)
    outcome = await view.outcome_of(accepted.source, event_id, accepted.position, "crm")
    return outcome is not None and outcome.event_id == event_id


async def fresh(log: Log) -> None:
    """Put an outcome behind the old ones, so that the tail begins there and has none of them in memory."""
    await log.outcome("fresh", owner="crm")


async def caught_up(view: ResultsView) -> None:
    archive = view._archive
    assert archive is not None
    await eventually_async(lambda: view.is_caught_up and archive.is_caught_up, within_s=30)


async def test_old_outcomes_are_found_without_a_ticket_and_without_a_scan(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await log.outcome(f"e{number}", age_ms=10 * HOUR_MS, owner="crm")
    await fresh(log)
    monkeypatch.setattr(results, "scan", None)
    view = open_view(log, tmp_path / "index.sqlite")
    try:
        await caught_up(view)

        assert view._cache.get("crm", "e3", "crm") is None
        assert await found_by_id(view, "e3")
        assert view._cache.get("crm", "e3", "crm"), "the second time from memory"
        with pytest.raises(UnknownResult):
            await view.accepted("billing", "e3", None)
        with pytest.raises(UnknownResult):
            await view.accepted("crm", "other", None)
    finally:
        view.close()


async def test_while_the_index_is_being_made_an_id_is_not_called_unknown(log: Log, tmp_path: Path) -> None:
    view = open_view(log, tmp_path / "index.sqlite")
    try:
        await caught_up(view)
        view._archive._indexing.is_caught_up = False  # type: ignore[union-attr]

        with pytest.raises(Busy):
            await view.accepted("crm", "other", None)
        with pytest.raises(UnknownResult):
            await view.accepted("crm", "other", None, within_memory=True)
    finally:
        view.close()


@pytest.mark.parametrize("harm", ["removed", "spoilt"])
async def test_an_index_that_is_damaged_while_it_is_used_is_made_anew_from_the_topics(
    log: Log, tmp_path: Path, harm: str
) -> None:
    path = tmp_path / "index.sqlite"
    for number in range(5):
        await log.outcome(f"e{number}", age_ms=10 * HOUR_MS, owner="crm")
    await fresh(log)
    view = open_view(log, path)
    archive = view._archive
    assert archive is not None

    async def is_found(event_id: str) -> bool:
        view._cache._outcomes.clear()
        view._cache._accepted.clear()
        try:
            return await found_by_id(view, event_id)
        except (Busy, LogUnavailable):
            # Never unknown, and nothing else.
            return False

    try:
        await caught_up(view)
        await eventually_async(lambda: archive.log_ids, within_s=15)
        if harm == "removed":
            path.unlink()
        else:
            await asyncio.to_thread(archive._index._writer.execute, "PRAGMA wal_checkpoint(TRUNCATE)")
            with path.open("r+b") as file:
                file.write(b"no database" * (path.stat().st_size // 11))

        assert not await is_found("e1")
        await eventually_async(lambda: is_found("e1"), within_s=30)
        await eventually_async(lambda: archive._index.log_ids() == archive.log_ids != {}, within_s=15)
        await caught_up(view)
        with pytest.raises(UnknownResult):
            await view.accepted("crm", "other", None)
    finally:
        view.close()


@pytest.mark.parametrize("has_index", [True, False])
async def test_behind_the_marks_of_transactions_an_id_is_known_or_unknown(
    log: Log, tmp_path: Path, has_index: bool
) -> None:
    """They lie behind the last record, and are none: a reader that counts records never comes to the end."""
    event = Event(id="paid", source="crm", type="t", data=b"{}", extensions={"owner": "crm"})
    path = tmp_path / "index.sqlite"
    view = open_view(log, path if has_index else None)
    producer = FencedProducer(log.kafka, ProducerSettings(), log.events)

    async def is_answered(event_id: str, wanted: str) -> bool:
        try:
            await view.accepted("crm", event_id, None)
        except UnknownResult:
            assert wanted == "unknown"
            return True
        except (Busy, LogUnavailable):
            # Topics that are new have no leaders for a moment.
            return False
        assert wanted == "found"
        return True

    try:
        await asyncio.to_thread(producer.take_over)
        await eventually_async(lambda: view._is_complete, within_s=30)
        for _ in range(2):
            await asyncio.to_thread(producer.write, [Record(log.events, None, b"{}", encode_event(event), PARTITION)])

            await eventually_async(lambda: is_answered("paid", "found"), within_s=15)
            await eventually_async(lambda: is_answered("other", "unknown"), within_s=15)
    finally:
        producer.close()
        view.close()


async def test_after_a_restart_reading_goes_on_where_it_ended(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    await log.outcome("before", age_ms=10 * HOUR_MS, owner="crm")
    view = open_view(log, path)
    await caught_up(view)
    view.close()
    await log.outcome("meanwhile", age_ms=9 * HOUR_MS, owner="crm")
    await fresh(log)
    read: list[str] = []
    real = outcomes.read_outcome

    def noting(*args: object) -> object:
        outcome = real(*args)  # type: ignore[arg-type]
        read.append(outcome.event_id if outcome else "")
        return outcome

    monkeypatch.setattr(indexing, "read_outcome", noting)
    view = open_view(log, path)
    try:
        await caught_up(view)

        assert read == ["meanwhile", "fresh"]
        assert await found_by_id(view, "before")
        assert await found_by_id(view, "meanwhile")
    finally:
        view.close()


async def test_a_topic_that_was_made_anew_gives_no_wrong_outcome(log: Log, kafka: KafkaLab, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    position = await log.outcome("old", age_ms=10 * HOUR_MS, owner="crm")
    view = open_view(log, path)
    await caught_up(view)
    view.close()
    for deleted in kafka.admin().delete_topics([log.results]).values():
        deleted.result(15)
    await eventually_async(lambda: log.results not in kafka.admin().list_topics(timeout=5).topics)
    kafka.create_named(log.results)
    kafka._created.pop()
    await eventually_async(lambda: _outcome(log, "new"), within_s=30)
    view = open_view(log, path)
    try:
        await caught_up(view)

        assert await view.outcome_of("crm", "old", position, "crm") is None
    finally:
        view.close()


async def _outcome(log: Log, event_id: str) -> bool:
    try:
        await log.outcome(event_id, age_ms=10 * HOUR_MS, owner="crm")
    except LogUnavailable:
        return False
    return True


async def test_a_process_killed_while_it_reads_leaves_rows_and_offsets_that_fit(log: Log, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    await asyncio.gather(*(log.outcome(f"e{n}", age_ms=10 * HOUR_MS, owner="crm") for n in range(3000)))
    await fresh(log)
    arguments = (*log.kafka.bootstrap_servers, log.results, log.events, str(path))
    with ChildProcess("tests.gateways.egress.test_archive_on_kafka", *arguments) as process:
        await asyncio.to_thread(process.wait_for, "some are written", 40)
        process.signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    view = open_view(log, path)
    try:
        await caught_up(view)
        archive = view._archive
        assert archive is not None

        missing = [n for n in range(3000) if archive._index.place_of(result_id("crm", f"e{n}")) is None]
        assert missing == []
        assert archive._index.next_offsets()[log.results, PARTITION] == 3001
        assert await found_by_id(view, "e1234")
    finally:
        view.close()


async def test_an_event_without_an_outcome_is_pending_however_old(log: Log, tmp_path: Path) -> None:
    event = Event(id="slow", source="crm", type="t", data=b"{}", extensions={"owner": "crm"})
    at_ms = int(time.time() * 1000) - 10 * HOUR_MS
    await log.producer.produce(Record(log.events, None, b"{}", encode_event(event), PARTITION, at_ms))
    view = open_view(log, tmp_path / "index.sqlite")
    try:

        async def pending() -> bool:
            try:
                return not await found_by_id(view, "slow")
            except (Busy, LogUnavailable):
                return False

        assert await eventually_async(pending, within_s=30)
    finally:
        view.close()


def _read_slowly(bootstrap: str, result_topic: str, event_topic: str, path: str) -> None:
    """Index in small steps until killed."""
    from contracts.settings import KafkaSettings

    indexing._WRITE_ROWS = 10
    indexing._POLL_RECORDS = 20
    kafka = KafkaSettings.model_validate({"bootstrap_servers": bootstrap})
    view = ResultsView(
        kafka,
        (result_topic,),
        (event_topic,),
        cache_bytes=2**20,
        retention_s=86_400.0,
        view=ResultsViewSettings(path=Path(path)),
    )
    view.start()
    archive = view._archive
    assert archive is not None
    while sum(archive._index.next_offsets().values()) < 200:
        time.sleep(0.001)
    sys.stdout.write("some are written\n")
    time.sleep(60)


if __name__ == "__main__":
    _read_slowly(*sys.argv[1:])
