"""`penstock batch` on real Kafka: whatever is killed, one line of output for each line of input."""

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts.batch_jobs import BatchJob, BatchObject
from contracts.codec import Record, encode_event
from contracts.envelope import Event
from contracts.errors import InvalidPayload, LogUnavailable
from contracts.settings import load
from gateways.batch.submitting import Submission, wanted_job
from producers.fenced import FencedProducer, TakenOver
from tests.kafka.batch_lab import BatchLab, events_of, read_lines, write_lines
from tests.kafka.worker_lab import PARTITIONS, STATIC, Outcomes, WorkerLab, recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = pytest.mark.timeout(180)
LINES = 300


def lab_on(kafka: KafkaLab, folder: Path, script: list[dict[str, Any]], **route: Any) -> BatchLab:
    return BatchLab(WorkerLab(kafka, folder, script, route={"deadline_s": 600, **route}), folder)


def fill(kafka: KafkaLab, topic: str, count: int) -> None:
    """Put records that nobody looks for on each partition."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for partition in range(PARTITIONS):
        for _ in range(count):
            producer.produce(topic, b"{}", partition=partition)
    assert producer.flush(10) == 0


@pytest.mark.long
def test_a_submit_that_is_killed_goes_on_without_repeating_or_leaving_out_a_line(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    batch = lab_on(kafka, tmp_path, [])
    count = 20_000
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}", "text": "x" * 100} for n in range(count)])

    for least in (500, 6_000):
        with batch.start("submit", str(source)) as process:
            # From the second kill on there is something to find again.
            eventually(lambda: batch.sent() > least, within_s=60)  # noqa: B023 - awaited at once
            process.signal(signal.SIGKILL)
            process.wait()
    killed_at = sum(batch.events().values())
    output = batch("submit", str(source))

    job = output.split("job ")[1].split(":")[0]
    assert killed_at < count
    assert batch.events() == Counter(f"{job}/{n + 1}" for n in range(count))
    assert batch("submit", str(source)).count(f"job {job}: {count} lines") == 1
    assert sum(batch.events().values()) == count


def test_every_line_has_one_outcome_though_the_worker_is_killed(kafka: KafkaLab, tmp_path: Path) -> None:
    script: list[dict[str, Any]] = [{"match": "poison", "error": "invalid_request"}, {"latency_s": 0.1}]
    batch = lab_on(kafka, tmp_path, script)
    documents: list[Any] = [{"recordId": f"r{n}", "text": f"ticket {n}"} for n in range(LINES)]
    documents[7] = {"recordId": "bad", "text": "poison"}
    documents[9] = "{not json"
    documents[11] = {"text": "no id of its own"}
    documents[12] = {"recordId": "r13", "text": "an id that comes twice"}
    source = write_lines(tmp_path / "in.jsonl", [*documents, "", "   "])

    with Outcomes(kafka, batch.lab.topics.results) as results:
        with batch.start("submit", str(source), "--job", "nightly", "--wait", "-o", "out.jsonl") as submit:
            with batch.lab.worker(**STATIC) as first:
                eventually(lambda: len(results.read().by_id) > LINES // 5, within_s=60)
                first.signal(signal.SIGKILL)
            with batch.lab.worker(**STATIC):
                assert submit.wait(90) == 0, submit.output
        tally = results.read()
    output, errors = read_lines(tmp_path / "out.jsonl"), read_lines(tmp_path / "out.errors.jsonl")
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))

    assert tally.duplicates == []
    assert [line["line"] for line in output] == list(range(1, LINES + 1))
    assert [line["recordId"] for line in output[9:13]] == ["10", "r10", "12", "r13"]
    assert output[13]["recordId"] == "r13"
    assert [(line["line"], line["status"], line["error"]["reason"]) for line in errors] == [
        (8, "dead_letter", "invalid_request"),
        (10, "rejected", "not_json"),
    ]
    assert errors[0]["input"] == documents[7]
    assert manifest["counts"] == {
        "succeeded": LINES - 2, "dead_letter": 1, "expired": 0, "rejected": 1, "missing": 0,
    }  # fmt: skip
    assert manifest["repeated_outcomes"] == 0
    shown = json.loads(batch("status", "nightly", "--json"))
    assert (shown["state"], shown["succeeded"], shown["waiting"]) == ("finished", LINES - 2, 0)


def test_a_second_submit_of_a_running_job_takes_it_over_and_nothing_goes_twice(kafka: KafkaLab, tmp_path: Path) -> None:
    batch = lab_on(kafka, tmp_path, [])
    count = 15_000
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}"} for n in range(count)])

    with batch.start("submit", str(source), "--job", "twice") as first:
        eventually(lambda: batch.sent() > 500, within_s=60)
        batch("submit", str(source), "--job", "twice")

        # The later one may come when the first has just ended.
        assert first.wait(60) == 0 or "another process has taken over" in first.output, first.output
    assert events_of(kafka, batch.lab.topics.events("bulk")) == Counter(f"twice/{n + 1}" for n in range(count))


def test_a_job_has_every_outcome_though_the_result_topic_was_made_anew_under_it(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    batch = lab_on(kafka, tmp_path, [])
    results = batch.lab.topics.results
    fill(kafka, results, LINES // PARTITIONS // 2)
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}"} for n in range(LINES)])
    batch("submit", str(source), "--job", "anew")

    recreate(kafka, results)
    with Outcomes(kafka, results) as told, batch.lab.worker():
        # Longer than the former one was: an offset of that is one of this.
        told.wait_for(LINES, within_s=60)
    batch("results", "anew", "-o", "out.jsonl")

    assert [line["status"] for line in read_lines(tmp_path / "out.jsonl")] == ["succeeded"] * LINES


def test_a_job_whose_event_topic_was_made_anew_before_its_lines_were_all_there_sends_none_twice(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """Workers may have answered some: nobody can say which are missing."""
    batch = lab_on(kafka, tmp_path, [])
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}", "text": "x" * 100} for n in range(20_000)])
    with batch.start("submit", str(source), "--job", "anew") as process:
        eventually(lambda: batch.sent() > 500, within_s=60)
        process.signal(signal.SIGKILL)

    recreate(kafka, batch.lab.topics.events("bulk"))
    told = batch("submit", str(source), "--job", "anew", code=1)

    assert "was made anew under it" in " ".join(told.split())
    assert batch.events() == Counter()


class Interrupted(Exception):
    """What a test ends a submission with."""


class Unpolled:
    """A client whose fatal errors are not told before they are asked for."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def poll(self, _timeout_s: float) -> int:
        return 0


class Endless(list[Record]):
    """Records that come, one after the other, until the client takes no more."""

    def __iter__(self) -> Iterator[Record]:
        while True:
            time.sleep(0.005)
            yield self[0]


def test_a_record_between_a_take_over_and_its_telling_is_refused_because_of_the_take_over(
    kafka: KafkaLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(lab_on(kafka, tmp_path, []).lab.config)
    (topic,), name = kafka.create("held"), kafka.name("batch.held")
    first, second = (FencedProducer(settings.kafka, settings.producer, name) for _ in range(2))
    first.take_over()
    second.take_over()
    monkeypatch.setattr(first, "_client", Unpolled(first._client))

    with pytest.raises(TakenOver):
        first.write(Endless([Record(topic, None, b"x", ())]))
    first.close()
    second.close()


def interrupt(_lines: int) -> None:
    raise Interrupted


@pytest.fixture
def made(kafka: KafkaLab, tmp_path: Path) -> Iterator[tuple[BatchLab, Callable[..., Submission]]]:
    """Give an installation, and submissions of one job with 1,500 lines."""
    batch = lab_on(kafka, tmp_path, [])
    settings = load(batch.lab.config)
    path = write_lines(tmp_path / "in.jsonl", [{"recordId": f"r{n}"} for n in range(1_500)])
    wanted = wanted_job("anew", BatchObject(uri=str(path)), source="support", kind="t")
    name, producers = kafka.name("batch.anew"), list[FencedProducer]()

    def submission(known: BatchJob | None = None) -> Submission:
        """Return one as a process makes it: with a client of its own."""
        producers.append(FencedProducer(settings.kafka, settings.producer, name))
        return Submission(settings, wanted, path, producers[-1], known=known)

    yield batch, submission
    for producer in producers:
        producer.close()


def test_a_job_whose_event_topic_is_made_anew_while_its_lines_go_out_is_not_called_submitted(
    kafka: KafkaLab, made: tuple[BatchLab, Callable[..., Submission]]
) -> None:
    batch, submission = made
    first = submission()
    job = first.begin()
    groups: list[int] = []

    def recreate_once(lines: int) -> None:
        groups.append(lines)
        if len(groups) == 1:
            recreate(kafka, batch.lab.topics.events("bulk"))

    # The client may not find the new partitions at once: then the job rests, and begins again.
    with pytest.raises((InvalidPayload, LogUnavailable)):
        first.send(job, recreate_once)
    again = submission()
    with pytest.raises(InvalidPayload, match="was made anew under it"):
        again.send(again.begin())

    assert max([0, *batch.events().values()]) <= 1


def test_a_job_whose_own_topic_was_made_anew_goes_on_with_what_its_process_knows(
    kafka: KafkaLab, made: tuple[BatchLab, Callable[..., Submission]]
) -> None:
    batch, submission = made
    first = submission()
    job = first.begin()
    with pytest.raises(Interrupted):
        first.send(job, interrupt)

    recreate(kafka, batch.lab.topics.batch_jobs)
    again = submission(known=job)
    submitted = again.send(again.begin())

    assert (submitted.state, submitted.event_starts) == ("submitted", job.event_starts)
    assert batch.events() == Counter(f"anew/{n + 1}" for n in range(1_500))
    assert json.loads(batch("status", "anew", "--json"))["state"] == "submitted"


def test_an_event_of_others_that_is_named_like_a_line_is_none(
    kafka: KafkaLab, made: tuple[BatchLab, Callable[..., Submission]]
) -> None:
    batch, submission = made
    first = submission()
    job = first.begin()
    names = ("anew/7", "anew/999999999999")
    others = [Event(id=name, source=source, type="t", data=b"{}") for name in names for source in ("x", job.source)]
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for event in others:
        producer.produce(batch.lab.topics.events("bulk"), b"{}", headers=list(encode_event(event)))
    assert producer.flush(10) == 0

    first.send(job)

    assert batch.events() == Counter(f"anew/{n + 1}" for n in range(1_500))


def test_results_before_the_end_are_written_only_when_asked_for(kafka: KafkaLab, tmp_path: Path) -> None:
    batch = lab_on(kafka, tmp_path, [])
    source = write_lines(tmp_path / "in.jsonl", [{"recordId": "a"}, {"recordId": "b"}])
    batch("submit", str(source), "--job", "early")

    refused = batch("results", "early", "-o", "out.jsonl", code=1)
    batch("results", "early", "-o", "out.jsonl", "--partial", code=1)

    assert "0 of 2 lines have an outcome" in refused
    assert [line["status"] for line in read_lines(tmp_path / "out.jsonl")] == ["missing", "missing"]
    assert "another input" in batch("submit", str(write_lines(source, [{"recordId": "c"}])), "--job", "early", code=1)
