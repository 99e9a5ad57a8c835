"""What a hand-over brings back when it is taken up: which answers it knows, and what they have cost."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest
from structlog.testing import capture_logs

from contracts.batch_jobs import Asked, HandOver, HandOverPart
from contracts.codec import Record, decode_json, parked_event
from contracts.envelope import format_time
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceResult, RetryNote
from contracts.settings import Settings
from producers.log_reader import Found
from streams.handover import delivery as delivering
from streams.handover.choosing import Api, Ways, record_id
from streams.handover.delivery import Delivery
from streams.handover.settling import Outcomes
from streams.providers.bedrock_jobs import InputGone
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
        self.shortened: set[str] = set()
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

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        records: list[Found],
        answers: list[Found],
        state: str = "running",
        asked: Asked | None = None,
    ) -> None:
        self.reader = Reader(records, answers)
        self.written: list[Record] = []
        self.created: list[tuple[Any, ...]] = []
        self.ids: list[str] = [record_id(one.partition, one.offset) for one in records]
        self.answered = list(self.ids)
        self.is_input_gone = False
        jobs: Any = SimpleNamespace(
            status=lambda _: ("Completed", ""),
            has=lambda _: True,
            create=self._create,
            record_ids=self._record_ids,
            outputs=lambda *_: [(name, json.dumps(ANSWER).encode()) for name in self.answered],
        )
        ways = Ways(settings)
        ways.apis = {name: Api(api.batch, jobs) for name, api in ways.apis.items()}
        desk: Any = SimpleNamespace(
            settings=settings,
            topics=TOPICS,
            ways=ways,
            producer=SimpleNamespace(write=self.written.extend),
            outcomes=Outcomes(TOPICS, "penstock", 10**6),
            log=SimpleNamespace(confirm=lambda: None),
            reader=lambda: self.reader,
        )
        made: Any = HandOver(
            id="h", ranges={"0": (0, len(records))}, answer_starts={TOPICS.retries: (7, 8)}, gathered_at="",
            answer_logs={TOPICS.retries: "log"}, parts={"m": msgspec.structs.replace(PART, asked=asked)},
        )  # fmt: skip
        self.delivery = Delivery(desk, msgspec.structs.replace(made, state=state), folder / "h")

    def _create(self, *how: Any, **more: Any) -> str:
        self.created.append((*how, more))
        return "arn:job/1"

    def _record_ids(self, uri: str) -> list[str]:
        if self.is_input_gone:
            raise InputGone(uri)
        return self.ids

    def results(self) -> list[InferenceResult]:
        """Return the results among what was written."""
        return [decode_json(one.value or b"", InferenceResult) for one in self.written if one.topic == TOPICS.results]

    def retries(self) -> list[RetryNote]:
        """Return what went to the workers."""
        return [parked_event(one.headers)[1] for one in self.written if one.topic == TOPICS.retries]

    @property
    def noted(self) -> HandOver:
        """Return the state as it was noted last."""
        return decode_json(self.written[-1].value or b"", HandOver)


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


def test_of_answers_to_records_of_other_hand_overs_nothing_is_kept(tmp_path: Path) -> None:
    """They end meanwhile, any number of them."""
    others = [answered(record(number), tmp_path) for number in (1, 5)]
    site = Site(tmp_path, make_settings(), [record(0), record(1)], others)

    assert [offset for _, offset, _ in site.delivery._known()] == [1]


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


def changed(section: str, name: str, **values: Any) -> Settings:
    """Return the configuration with other values in one section of it."""
    document = make_settings().model_dump(mode="json", exclude_defaults=True)
    document[section][name] |= values
    return Settings.model_validate(document)


ASKED = Asked(provider="p", model="model-0", prices_usd=(500, 500, 0, 0), price_share=0.5, prompts={"r": "as it was"})


@pytest.mark.parametrize(
    "settings",
    [
        changed("models", "m", model="model-9", price={"input_usd": 1, "output_usd": 1}),
        changed("models", "m", provider="q"),
        make_settings(model="n"),
        make_settings(prompt={"user": "{{ data.text }}!"}),
    ],
    ids=["model", "provider", "alias", "prompt"],
)
def test_an_answer_is_of_the_model_that_was_asked_whatever_the_configuration_says_since(
    tmp_path: Path, settings: Settings
) -> None:
    """It is paid for; and its cost is what that model costs."""
    site = Site(tmp_path, settings, [record(0)], [], asked=ASKED)

    site.delivery.step()
    (result,) = site.results()

    assert (result.provenance.model, result.provenance.prompt_digest) == ("model-0", "as it was")
    assert result.cost_usd == pytest.approx(COST_USD / 2)
    assert site.noted.counts == {"succeeded": 1}


def test_an_answer_to_an_event_that_no_route_takes_any_more_goes_to_the_workers_with_its_cost(tmp_path: Path) -> None:
    document = make_settings().model_dump(mode="json", exclude_defaults=True)
    document["routes"] = [document["routes"][1] | {"match": {"source": ["elsewhere"]}}]
    site = Site(tmp_path, Settings.model_validate(document), [record(0)], [], asked=ASKED)

    site.delivery.step()
    (note,) = site.retries()

    assert (note.reason, note.attempts) == ("batch_unroutable", 1)
    assert note.cost_usd == pytest.approx(COST_USD / 2)
    assert site.noted.counts == {"unroutable": 1}


def test_a_job_that_may_have_been_begun_is_asked_for_as_it_was(tmp_path: Path) -> None:
    """Under its token another model would be refused, and the workers would answer beside the job."""
    site = Site(tmp_path, changed("models", "m", model="model-9"), [record(0)], [], "gathered", ASKED)
    site.delivery.state = msgspec.structs.replace(
        site.delivery.state, parts={"m": msgspec.structs.replace(site.delivery.state.parts["m"], arn="")}
    )

    site.delivery.step()

    assert site.created == [("model-0", PART.token, PART.input_uri, PART.output_uri, {"may_exist": True})]


def test_a_job_whose_provider_has_no_batch_api_any_more_waits_for_it(tmp_path: Path) -> None:
    """Its answers are there, and paid for."""
    site = Site(tmp_path, make_settings(), [record(0)], [], asked=msgspec.structs.replace(ASKED, provider="gone"))
    site.delivery._desk.ways._models = {}

    with capture_logs() as lines:
        site.delivery.step()

    assert not site.delivery.is_over
    assert [(line["event"], line["reason"]) for line in lines] == [("handover.rests", "config_invalid")]
    assert "provider gone, where a job is, has no batch_api any more" in lines[0]["error"]


def test_a_section_that_was_given_another_name_is_found_by_the_alias(tmp_path: Path) -> None:
    site = Site(tmp_path, make_settings(), [record(0)], [], asked=msgspec.structs.replace(ASKED, provider="former"))

    site.delivery.step()

    assert [result.provenance.model for result in site.results()] == ["model-0"]


def test_a_hand_over_whose_input_is_gone_ends_with_the_answers_that_there_are(tmp_path: Path) -> None:
    """A lifecycle rule, say, has removed it: what was sent to the workers instead is on the log alone."""
    records = [record(0), record(1), record(2)]
    parked = Outcomes(TOPICS, "penstock", 10**6).retry(
        records[1], Ways(make_settings()).job(records[1]), "batch_not_for"
    )
    found = Found(parked.topic, 0, 0, None, b"", {name: raw for name, raw in parked.headers if raw is not None})
    site = Site(tmp_path, make_settings(), records, [found], asked=ASKED)
    site.is_input_gone, site.answered = True, site.ids[:1]
    site.delivery._is_resumed = False

    with capture_logs() as lines:
        site.delivery.step()

    assert site.noted.counts == {"succeeded": 1, "answered_before": 1, "input_gone": 1}
    assert ([result.event_id for result in site.results()], [note.reason for note in site.retries()]) == (
        ["e0"],
        ["batch_input_gone"],
    )
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["handover.input_gone"]


def test_a_hand_over_whose_input_is_gone_tells_what_may_be_done_twice(tmp_path: Path) -> None:
    """What was sent to the workers instead was on a topic that has forgotten it since."""
    site = Site(tmp_path, make_settings(), [record(0), record(1)], [], asked=ASKED)
    site.is_input_gone, site.answered, site.reader.shortened = True, site.ids[:1], {TOPICS.retries}

    with capture_logs() as lines:
        site.delivery.step()

    assert site.noted.counts == {"succeeded": 1, "input_gone": 1}
    assert [line["topics"] for line in lines if line["event"] == "handover.answers_forgotten"] == [[TOPICS.retries]]


def test_thoughts_in_an_answer_of_a_job_are_no_part_of_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an imported model, whose thoughts Bedrock does not know."""
    said = {"content": [{"text": "<think>hm</think>\n\nfine"}]}
    monkeypatch.setitem(ANSWER["modelOutput"], "output", {"message": said})
    site = Site(tmp_path, make_settings(), [record(0)], [])

    site.delivery.step()

    assert [result.output for result in site.results()] == ["fine"]


def test_a_job_that_has_answered_and_whose_answers_are_gone_is_told(tmp_path: Path) -> None:
    """They are paid for, and the workers answer once more."""
    site = Site(tmp_path, make_settings(), [record(0)], [], asked=ASKED)
    site.answered = []

    with capture_logs() as lines:
        site.delivery.step()

    assert site.noted.counts == {"unanswered": 1}
    assert [line["job"] for line in lines if line["event"] == "handover.output_gone"] == ["arn:job/1"]


def test_large_records_are_written_in_groups_that_a_transaction_has_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "_GROUP_BYTES", 1500)
    site = Site(tmp_path, make_settings(), [], [])
    groups: list[int] = []
    monkeypatch.setattr(site.delivery._desk.producer, "write", lambda group: groups.append(len(group)))

    count = site.delivery._write(Record("t", None, b"x" * 1000, ()) for _ in range(5))

    assert (count, groups) == (5, [2, 2, 1])
