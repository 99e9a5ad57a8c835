"""A parked event survives the death of its worker: attempts, costs and time are kept, and no call is made twice."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from contracts.codec import decode_json, parked_event
from contracts.payloads import InferenceResult
from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, headers_of
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = pytest.mark.timeout(150)
EVENTS = 40
WAIT_S = 12.0
# Every event is delivered again after the kill: only the journal knows that it is parked.
NO_COMMITS = {"commit_interval_s": 60}
ROUTE: dict[str, Any] = {"order": "none", "retry": {"park_after_s": 1}}


@pytest.fixture
def retries(kafka: KafkaLab) -> Iterator[Consumer]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": kafka.name("retries"), "log_level": 0})
    yield consumer
    consumer.close()


@pytest.mark.long
def test_a_parked_event_survives_a_kill_with_its_attempts_and_its_time(
    kafka: KafkaLab, tmp_path: Path, retries: Consumer
) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"error": "throttled", "retry_after_s": WAIT_S}], route=ROUTE, worker=NO_COMMITS)
    lab.create_topics()
    retries.assign([TopicPartition(lab.topics.retries, n, 0) for n in range(PARTITIONS)])
    parked: dict[str, int] = {}
    records: Counter[str] = Counter()

    def read() -> int:
        for message in retries.consume(500, 0.2):
            _, note, original = parked_event(headers_of(message))
            name = dict(original)["ce_id"] or b""
            parked[name.decode()] = note.not_before_ms
            records[name.decode()] += 1
        return len(parked)

    with lab.running() as first:
        lab.send(0, EVENTS)
        eventually(lambda: read() == EVENTS, within_s=30)
        first.signal(signal.SIGKILL)

    # The model has recovered: one call each is enough now.
    healed = WorkerLab(kafka, tmp_path, route=ROUTE)
    with Outcomes(kafka, lab.topics.results) as results, healed.running() as second:
        tally = results.wait_for(EVENTS)
        read()

        assert (tally.lost(EVENTS), tally.duplicates) == ([], [])
        assert set(records.values()) == {1}
        for message in results.messages:
            result = decode_json(message.value() or b"", InferenceResult)
            assert result.attempts == 2
            # Timers run by another clock than timestamps.
            assert message.timestamp()[1] >= parked[result.event_id] - 50
        assert second.output.count("event.finished") == EVENTS
