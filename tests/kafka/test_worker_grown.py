"""Partitions are added to the topics of a running worker."""

from pathlib import Path

import pytest
from confluent_kafka.admin import NewPartitions

from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(150)

_MORE = PARTITIONS + 2


@pytest.mark.long
def test_a_running_worker_takes_up_partitions_that_are_added(kafka: KafkaLab, tmp_path: Path) -> None:
    """Its consumer hears of them before its producer does, which would refuse their first outcomes."""
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    quiet = ChildProcess("tests.kafka.quiet_worker", "worker", "--config", str(lab.config), grace_s=15)
    with Outcomes(kafka, lab.topics.results, _MORE) as results, quiet as worker:
        wait_for_partitions(worker)
        results.wait_for(200)
        for topic in (lab.topics.results, lab.topics.retries, lab.topics.dead_letters, lab.events):
            kafka.admin().create_partitions([NewPartitions(topic, _MORE)])[topic].result(15)

        sent = 200

        def reaches_a_new_partition() -> bool:
            nonlocal sent
            lab.send(sent, 20)
            sent += 20
            results.read(0.5)
            return any((message.partition() or 0) >= PARTITIONS for message in results.messages)

        eventually(reaches_a_new_partition, within_s=60)
        tally = results.wait_for(sent)

        assert worker.process.poll() is None
    assert (tally.lost(sent), tally.duplicates) == ([], [])


@pytest.mark.long
def test_a_worker_says_which_result_partition_is_missing_and_goes_on_when_it_is_there(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """Only the event topic was given more partitions."""
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results, _MORE) as results, lab.running() as worker:
        results.wait_for(200)
        kafka.admin().create_partitions([NewPartitions(lab.events, _MORE)])[lab.events].result(15)
        worker.wait_for(r"has no partition [45].*journal\.unreadable", 60)
        lab.send(200, 200)
        for topic in (lab.topics.results, lab.topics.retries):
            kafka.admin().create_partitions([NewPartitions(topic, _MORE)])[topic].result(15)
        tally = results.wait_for(400)

        assert worker.process.poll() is None
    assert (tally.lost(400), tally.duplicates) == ([], [])
