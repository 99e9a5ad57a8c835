"""Which outcome of an event that ended more than once is shown: from memory, the index on disk, and a look-up."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from contracts.codec import REDRIVE, Position, Record, encode_json, outcome_headers
from contracts.envelope import Event, result_id
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, RESULT_TYPE, Redrive
from contracts.settings import KafkaSettings, ResultsViewSettings
from gateways.egress import results
from gateways.egress.outcomes import Outcome
from gateways.egress.results import ResultsView
from gateways.egress.scan import Scanned
from producers.embedded import EmbeddedBroker
from tests.gateways.egress.test_results import Log
from tests.support import eventually_async

pytestmark = pytest.mark.embedded

# How an event ends, how often it had been put back by then, and which of several that is.
End = tuple[str, int, bytes]
DEAD: End = (DEAD_LETTER_MARKER_TYPE, 0, b"dead")
LATE: End = (RESULT_TYPE, 0, b"late")
AGAIN: End = (DEAD_LETTER_MARKER_TYPE, 1, b"dead again")
GOOD: End = (RESULT_TYPE, 1, b"redriven")
BETTER: End = (RESULT_TYPE, 2, b"redriven twice")
CASES = pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ((DEAD, GOOD), GOOD),
        ((DEAD, AGAIN, BETTER), BETTER),
        ((DEAD, GOOD, LATE), GOOD),
        ((DEAD, AGAIN), AGAIN),
        (((RESULT_TYPE, 0, b"first"), LATE), (RESULT_TYPE, 0, b"first")),
    ],
    ids=["redriven", "twice", "and late", "in vain", "late"],
)


@pytest.fixture
async def log(embedded_broker: EmbeddedBroker) -> AsyncIterator[Log]:
    log = Log(KafkaSettings.model_validate({"bootstrap_servers": embedded_broker.bootstrap}))
    await log.producer.start()
    yield log
    await log.producer.aclose()


async def end(log: Log, event: Event, position: Position, ends: Sequence[End]) -> None:
    """Write outcomes of one event."""
    for kind, count, value in ends:
        headers = outcome_headers(event, kind, "2026-01-01T00:00:00.000Z", "app", position)
        if count:
            redrive = Redrive(partition=0, offset=0, timestamp_ms=0, count=count, at="2026-01-01T00:00:00.000Z")
            headers.append((REDRIVE, encode_json(redrive)))
        await log.producer.produce(Record(log.results, None, value, headers, position.partition))


def said(outcome: Outcome | None) -> bytes | None:
    return outcome.value if outcome is not None else None


@CASES
async def test_from_memory(log: Log, ends: Sequence[End], shown: End) -> None:
    view = log.view()
    view.start()
    event, position = await log.event("e1")
    await end(log, event, position, ends)
    last, last_position = await log.event("last")
    last_position = last_position._replace(partition=position.partition)
    await end(log, last, last_position, [GOOD])
    try:
        await eventually_async(lambda: view._cache.get("crm", "last"), within_s=15)

        assert said(await view.outcome_of("crm", "e1", position)) == shown[2]
    finally:
        view.close()


@CASES
async def test_from_the_index(log: Log, tmp_path: Path, ends: Sequence[End], shown: End) -> None:
    settings = ResultsViewSettings(path=tmp_path / "index.sqlite", max_bytes=16 * 2**20)
    view = ResultsView(log.kafka, (log.results,), (log.events,), cache_bytes=2**20, retention_s=3600.0, view=settings)
    archive = view._archive
    assert archive is not None
    view.start()
    event, position = await log.event("e1")
    await end(log, event, position, ends)
    last, last_position = await log.event("last")
    await end(log, last, last_position._replace(partition=position.partition), [GOOD])
    try:
        await eventually_async(lambda: archive.outcome(result_id("crm", "last")), within_s=15)

        assert said(await archive.outcome(result_id("crm", "e1"))) == shown[2]
    finally:
        view.close()


@CASES
async def test_from_a_look_up(log: Log, ends: Sequence[End], shown: End) -> None:
    event, position = await log.event("e1")
    await end(log, event, position, ends)
    # Nothing is followed.
    view = log.view()
    try:
        assert said(await view.outcome_of("crm", "e1", position)) == shown[2]
    finally:
        view.close()


@pytest.mark.parametrize("way", ["memory", "index", "look-up"])
async def test_an_event_that_is_sent_again_under_its_id_is_pending_until_it_has_its_own_outcome(
    log: Log, tmp_path: Path, way: str
) -> None:
    """Its sender wants it done again, or has used its id for another body: its ticket must not tell of the first."""
    first, first_position = await log.event("e1")
    await end(log, first, first_position, [DEAD])
    again, position = await log.event("e1")
    settings = ResultsViewSettings(path=tmp_path / "index.sqlite", max_bytes=16 * 2**20)
    index = settings if way == "index" else None
    view = ResultsView(log.kafka, (log.results,), (log.events,), cache_bytes=2**20, retention_s=3600.0, view=index)
    archive = view._archive
    if way == "memory":
        view.start()
        await eventually_async(lambda: view.is_caught_up and view._cache.get("crm", "e1"), within_s=15)
    elif archive is not None:
        archive.start()
        await eventually_async(lambda: archive.is_caught_up, within_s=15)
    try:
        assert said(await view.outcome_of("crm", "e1", position)) is None
        assert said(await view.outcome_of("crm", "e1", first_position)) == b"dead"

        await end(log, again, position, [LATE])

        found = await eventually_async(lambda: view.outcome_of("crm", "e1", position), within_s=15)
        assert said(found) == b"late"
        assert said(await view.outcome_of("crm", "e1", first_position)) == b"dead"
    finally:
        view.close()


@pytest.mark.parametrize("is_redriven", [True, False])
async def test_a_look_up_that_ran_out_of_time_behind_a_dead_letter_goes_on_when_asked_again(
    log: Log, monkeypatch: pytest.MonkeyPatch, is_redriven: bool
) -> None:
    event, position = await log.event("e1")
    dead, good = (
        Outcome(result_id("crm", event.id), event.id, "crm", "", kind, value, position.timestamp_ms, count)
        for kind, count, value in (DEAD, GOOD)
    )
    offsets: list[dict[str, int]] = []
    answers = [Scanned(dead, {"r": 5}, is_complete=False), Scanned(None, {"r": 9}, is_complete=False)]
    answers.append(Scanned(good if is_redriven else None, {"r": 12}, is_complete=True))

    def scan(*args: object) -> Scanned:
        offsets.append(dict(args[3]))  # type: ignore[call-overload]
        return answers.pop(0)

    monkeypatch.setattr(results, "scan", scan)
    view = log.view()
    try:
        # The last one comes from memory.
        heard = [said(await view.outcome_of("crm", "e1", position)) for _ in range(4)]
    finally:
        view.close()

    last = b"redriven" if is_redriven else b"dead"
    assert heard == [b"dead", b"dead", last, last]
    assert offsets == [{}, {"r": 5}, {"r": 9}]
