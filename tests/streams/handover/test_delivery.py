"""What a hand-over brings back when it is taken up: which answers it knows, and what they have cost."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest

from contracts.batch_jobs import HandOver, HandOverPart
from contracts.codec import Record, decode_json, parked_event
from contracts.envelope import format_time
from contracts.metrics import REGISTRY
from contracts.settings import Settings
from producers.log_reader import Found
from streams.handover.choosing import Ways, record_id
from streams.handover.delivery import Delivery
from streams.handover.settling import Outcomes
from tests.streams.handover.support import TOPICS, make_settings, record

PART = HandOverPart(token="t", input_uri="s3://jobs/in/h/0.jsonl", output_uri="s3://jobs/out/h/", arn="arn:job/1")
ANSWER = {
    "modelOutput": {
        "output": {"message": {"content": [{"text": "fine"}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 10, "outputTokens": 2},
    }
}
# 12 tokens at 1,000 dollars a million, and half of that in a batch.
COST_USD = 0.006


class Reader:
    """A reader that is told where to begin, and finds what it was given."""

    def __init__(self, records: list[Found], answers: list[Found]) -> None:
        self.begun: tuple[Any, ...] = ()
        self._records = records
        self._answers = answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Have nothing to close."""

    def begin(self, *where: Any) -> None:
        """Note where."""
        self.begun = where

    def read(self, *_where: Any) -> list[Found]:
        """Find the records of the hand-over."""
        return self._records

    def to_the_end(self) -> list[Found]:
        """Find the answers."""
        return self._answers


class Site:
    """A hand-over whose job is over, and its desk."""

    def __init__(self, folder: Path, settings: Settings, records: list[Found], answers: list[Found]) -> None:
        self.reader = Reader(records, answers)
        self.written: list[Record] = []
        ways = Ways(settings)
        jobs = SimpleNamespace(
            status=lambda _: ("Completed", ""),
            record_ids=lambda _: [record_id(one.partition, one.offset) for one in records],
            outputs=lambda *_: [(record_id(one.partition, one.offset), json.dumps(ANSWER).encode()) for one in records],
        )
        desk: Any = SimpleNamespace(
            settings=settings,
            topics=TOPICS,
            ways=SimpleNamespace(
                by_alias={"m": SimpleNamespace(batch=ways.by_alias["m"].batch, jobs=jobs)},
                by_route=ways.by_route,
                job=ways.job,
            ),
            producer=SimpleNamespace(write=self.written.extend),
            outcomes=Outcomes(TOPICS, "penstock", 10**6),
            log=SimpleNamespace(confirm=lambda: None),
            reader=lambda: self.reader,
        )
        state = HandOver(
            id="h", ranges={"0": (0, len(records))}, answer_starts={TOPICS.retries: (7, 8)}, gathered_at="",
            answer_logs={TOPICS.retries: "log"}, parts={"m": PART}, state="running",
        )  # fmt: skip
        self.delivery = Delivery(desk, state, folder / "h")


def answered(one: Found, folder: Path) -> Found:
    """Return the answer to a record as an earlier process has left it on the log."""
    site = Site(folder, make_settings(), [one], [])
    site.delivery.step()
    made = site.written[0]
    headers = {name: raw for name, raw in made.headers if raw is not None}
    return Found(made.topic, 0, 0, made.key, made.value, headers, tuple(made.headers))


def spent_usd() -> float:
    labels = {"provider": "aws.bedrock", "model": "model-1", "basis": "reported"}
    return REGISTRY.get_sample_value("penstock_fm_cost_usd_total", labels) or 0.0


def test_answers_are_looked_for_from_where_they_began_on_the_logs_that_this_was_noted_of(tmp_path: Path) -> None:
    """On a result topic that was made anew they lie below, and would be written once more."""
    site = Site(tmp_path, make_settings(), [], [])

    assert site.delivery._known() == set()

    assert site.reader.begun == ({TOPICS.results: (), TOPICS.retries: (7, 8)}, {TOPICS.retries: "log"})


def test_answers_are_looked_for_on_a_topic_that_a_route_was_given_since(tmp_path: Path) -> None:
    """An earlier process may have written a part of them there, and was killed."""
    site = Site(tmp_path, make_settings(output_topic="late"), [], [])

    site.delivery._known()

    assert site.reader.begun[0] == {"late": (), TOPICS.results: (), TOPICS.retries: (7, 8)}


def test_the_cost_of_answers_that_an_earlier_process_has_written_is_told_as_well(tmp_path: Path) -> None:
    """It was killed before it could tell anybody."""
    records = [record(0), record(1), record(2)]
    before = [answered(records[0], tmp_path), answered(records[1], tmp_path)]
    booked_usd = spent_usd()
    site = Site(tmp_path, make_settings(), records, before)

    site.delivery.step()

    result, note = site.written
    state = decode_json(note.value or b"", HandOver)
    assert (result.topic, state.state) == (TOPICS.results, "finished")
    assert state.counts == {"answered_before": 2, "succeeded": 1}
    assert state.cost_usd == pytest.approx(3 * COST_USD)
    assert spent_usd() - booked_usd == pytest.approx(3 * COST_USD)


def test_a_record_that_came_after_everything_was_gathered_gets_no_answer_of_the_job(tmp_path: Path) -> None:
    """Its broker has lost the record that was handed over, and has given its offset again."""
    site = Site(tmp_path, make_settings(), [record(0), record(1)], [])
    gathered_ms = site.reader._records[0].timestamp_ms
    site.reader._records[1] = site.reader._records[1]._replace(timestamp_ms=gathered_ms + 61_000)
    gathered_at = format_time(datetime.fromtimestamp(gathered_ms / 1000, UTC))
    state = msgspec.structs.replace(site.delivery.state, gathered_at=gathered_at)

    Delivery(site.delivery._desk, state, tmp_path / "h").step()

    first, second, _ = site.written
    assert (first.topic, second.topic) == (TOPICS.results, TOPICS.retries)
    assert parked_event(second.headers)[1].reason == "batch_unanswered"
