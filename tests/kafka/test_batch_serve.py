"""`penstock batch serve`: an S3 object in, one line for each of its lines out, whatever is killed in between."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts.batch_jobs import BatchRequest, job_record, request_of
from contracts.settings import load
from tests.awslab.moto import Moto
from tests.kafka.batch_lab import BatchLab, read_lines, write_lines
from tests.kafka.worker_lab import Outcomes, WorkerLab, recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ask, eventually

pytestmark = pytest.mark.timeout(180)
LINES = 250


@pytest.fixture
def s3(s3: Any, moto: Moto) -> Any:
    """Give it with the buckets `in-bucket` and `out-bucket`."""
    moto.bucket("in-bucket")
    moto.bucket("out-bucket")
    return s3


@pytest.fixture
def batch(kafka: KafkaLab, tmp_path: Path, s3: Any) -> BatchLab:
    """Give an installation that works on objects of `in-bucket`."""
    section = {
        "s3_endpoint_url": s3.meta.endpoint_url,
        "work_dir": str(tmp_path / "work"),
        "retry_pause_s": 0.2,
        "inputs": [{"name": "nightly", "bucket": "in-bucket", "key": "*.jsonl", "output": "s3://out-bucket/done"}],
    }
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.1}], route={"deadline_s": 600}, more={"batch_jobs": section})
    return BatchLab(lab, tmp_path)


def announce(batch: BatchLab, s3: Any, key: str, body: str, etag: str | None = None) -> BatchRequest:
    """Put an object, and what a door makes of its notification."""
    found = s3.put_object(Bucket="in-bucket", Key=key, Body=body.encode())
    request = request_of(
        load(batch.lab.config).batch_jobs.inputs,
        "in-bucket",
        key,
        version_id="",
        etag=etag or found["ETag"].strip('"'),
        size_bytes=len(body),
        at="",
    )
    assert request is not None
    record = job_record(batch.lab.topics, request)
    producer = Producer({"bootstrap.servers": batch.lab.kafka.bootstrap, "log_level": 0})
    # A notification may come twice.
    for _ in range(2):
        producer.produce(record.topic, record.value, record.key)
    assert producer.flush(10) == 0
    return request


def read(s3: Any, request: BatchRequest, name: str) -> str:
    key = request.object.uri.removeprefix("s3://in-bucket/")
    found = s3.get_object(Bucket="out-bucket", Key=f"done/{key}/{request.id}/{name}")
    text: str = found["Body"].read().decode()
    return text


def is_there(s3: Any, request: BatchRequest) -> bool:
    try:
        return bool(read(s3, request, "manifest.json"))
    except s3.exceptions.NoSuchKey:
        return False


@pytest.mark.long
def test_an_object_is_answered_line_by_line_though_everything_is_killed(batch: BatchLab, s3: Any) -> None:
    body = "".join(json.dumps({"recordId": f"r{n}", "text": f"ticket {n}"}) + "\n" for n in range(LINES))
    request = announce(batch, s3, "2026/tickets.jsonl", body)
    with Outcomes(batch.lab.kafka, batch.lab.topics.results) as results:
        with batch.start("serve") as first:
            # While the lines go out, or just after.
            eventually(lambda: sum(batch.events().values()) > 0, within_s=60)
            first.signal(signal.SIGKILL)
        with batch.lab.worker(), batch.start("serve") as second:
            eventually(lambda: len(results.read().by_id) > LINES // 4, within_s=60)
            second.signal(signal.SIGKILL)
            second.wait()
            with batch.start("serve") as third:
                eventually(lambda: is_there(s3, request), within_s=60)
                third.wait_for("batch.job_finished")
        duplicates = results.read().duplicates

    output = [json.loads(line) for line in read(s3, request, "output.jsonl").splitlines()]
    assert duplicates == []
    assert batch.events() == Counter(f"{request.id}/{n + 1}" for n in range(LINES))
    assert [(line["line"], line["recordId"]) for line in output] == [(n + 1, f"r{n}") for n in range(LINES)]
    assert read(s3, request, "errors.jsonl") == ""
    assert json.loads(read(s3, request, "manifest.json"))["counts"]["succeeded"] == LINES


@pytest.mark.long
def test_it_waits_for_kafka_at_its_start(batch: BatchLab, s3: Any) -> None:
    broker = batch.lab.kafka.broker
    if not broker.is_ours:
        pytest.skip("the broker is not ours to restart")
    request = announce(batch, s3, "waits.jsonl", '{"recordId": "x", "text": "a ticket"}\n')
    broker.stop()
    with batch.start("serve") as serving:
        serving.wait_for("kafka.waiting", 30)
        broker.start()
        with batch.lab.worker():
            serving.wait_for("batch.job_finished", 60)

    assert is_there(s3, request)


@pytest.mark.parametrize("is_begun", [False, True])
def test_it_ends_soon_though_kafka_is_silent(batch: BatchLab, s3: Any, is_begun: bool) -> None:
    broker = batch.lab.kafka.broker
    if not broker.is_ours:
        pytest.skip("the broker is not ours to pause")
    with batch.start("serve") as serving:
        serving.wait_for("batch.serving", 60)
        if is_begun:
            announce(batch, s3, "a.jsonl", '{"recordId": "x", "text": "a ticket"}\n')
            serving.wait_for("batch.job_submitted", 60)
        broker.pause()
        try:
            serving.signal(signal.SIGTERM)
            assert serving.wait(4) == 0, serving.output
        finally:
            broker.resume()


def test_a_submit_is_interrupted_soon_though_kafka_is_silent(batch: BatchLab, tmp_path: Path) -> None:
    broker = batch.lab.kafka.broker
    if not broker.is_ours:
        pytest.skip("the broker is not ours to pause")
    source = write_lines(tmp_path / "in.jsonl", [{"text": "x" * 100}] * 100_000)
    (tmp_path / "work").mkdir()
    with batch.start("submit", str(source)) as process:
        eventually(lambda: batch.sent() > 500, within_s=60)
        broker.pause()
        try:
            process.signal(signal.SIGTERM)
            assert process.wait(4) == 130, process.output
        finally:
            broker.resume()
        assert "interrupted; the same command goes on" in process.output


@pytest.mark.long
def test_a_job_that_fails_after_its_lines_went_out_keeps_its_answers(batch: BatchLab, s3: Any, tmp_path: Path) -> None:
    line = '{"recordId": "x", "text": "a ticket"}\n'
    request = announce(batch, s3, "a.jsonl", line)
    with batch.start("serve") as first:
        first.wait_for("batch.job_submitted", 60)
        first.signal(signal.SIGKILL)
    # Without its input nothing can be joined.
    s3.delete_object(Bucket="in-bucket", Key="a.jsonl")
    with batch.lab.worker(), batch.start("serve") as second:
        second.wait_for("batch.job_failed", 60)
        eventually(lambda: '"state": "failed"' in batch("status", request.id, "--json"), 30)
        (tmp_path / "copy.jsonl").write_text(line, encoding="utf-8")
        batch("results", request.id, "--input", "copy.jsonl", "-o", "out.jsonl", "--wait")

    assert [line["status"] for line in read_lines(tmp_path / "out.jsonl")] == ["succeeded"]


@pytest.mark.long
def test_a_jobs_topic_that_is_made_anew_is_read_and_no_job_is_forgotten(batch: BatchLab, s3: Any) -> None:
    lines = "".join(f'{{"recordId": "x{n}", "text": "a ticket"}}\n' for n in range(3))
    before = announce(batch, s3, "before.jsonl", lines)
    with batch.start("serve", program="tests.kafka.watchful_batch") as serving:
        serving.wait_for("batch.job_submitted", 60)
        recreate(batch.lab.kafka, batch.lab.topics.batch_jobs)
        # So many that the new log is longer than the former one was, in each partition.
        after = [announce(batch, s3, f"after{n}.jsonl", lines) for n in range(12)]
        serving.wait_for("batch.jobs_topic_made_anew", 60)
        with batch.lab.worker():
            eventually(lambda: all(is_there(s3, one) for one in (before, *after)), within_s=60)

    ids = [f"{one.id}/{line}" for one in (before, *after) for line in (1, 2, 3)]
    assert batch.events() == Counter(ids)


def test_an_object_that_was_replaced_meanwhile_fails_its_job_and_no_other(batch: BatchLab, s3: Any) -> None:
    gone = announce(batch, s3, "gone.jsonl", '{"recordId": "x"}\n', etag="0" * 32)
    kept = announce(batch, s3, "kept.jsonl", '{"recordId": "y"}\n')

    with batch.lab.worker(), batch.start("serve") as serving:
        url = serving.wait_for(r"^health on (http://\S+)$")[1]
        serving.wait_for("batch.job_failed")
        serving.wait_for("batch.job_finished", 60)
        eventually(lambda: b"penstock_batch_jobs_open 0.0" in ask(f"{url}/metrics"))
        page = ask(f"{url}/metrics").decode()
    assert is_there(s3, kept)
    listing = batch("status", "--json")

    states = {line["id"]: line["state"] for line in map(json.loads, listing.splitlines())}
    assert 'penstock_batch_jobs_total{outcome="failed"} 1.0' in page
    assert 'penstock_batch_jobs_total{outcome="finished"} 1.0' in page
    assert "penstock_batch_oldest_job_age_seconds 0.0" in page
    assert "penstock_batch_last_finished_timestamp_seconds 0.0" not in page
    assert states == {gone.id: "failed", kept.id: "finished"}
