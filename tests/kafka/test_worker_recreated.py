"""Topics that are deleted and made anew: nothing of a new source is lost, nothing is paid for twice."""

import asyncio
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import OffsetAndMetadata

from streams.engine.mark import decode_mark
from tests.kafka.gated_model import GatedModel
from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, recreate, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(150)

Commits = dict[TopicPartition, OffsetAndMetadata]


def test_a_source_topic_that_is_recreated_while_no_worker_runs_loses_nothing(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running():
            results.wait_for(200)
        recreate(kafka, lab.events)
        lab.send(200, 200)
        with lab.running():
            tally = results.wait_for(400)

    assert (tally.lost(400), tally.duplicates) == ([], [])


@pytest.mark.long
def test_a_source_topic_that_is_recreated_under_a_running_worker_loses_nothing(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        results.wait_for(200)
        recreate(kafka, lab.events)
        lab.send(200, 300)
        tally = results.wait_for(500, within_s=90)
        eventually(lambda: sum(lab.committed().values()) == 300, within_s=20)

    assert (tally.lost(500), tally.duplicates) == ([], [])


def test_a_late_commit_of_the_former_topic_loses_nothing_of_the_recreated_one(kafka: KafkaLab, tmp_path: Path) -> None:
    """The broker forgets the offsets of a topic that is deleted, but a worker may commit them once more behind that."""
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running():
            results.wait_for(200)
        recreate(kafka, lab.events)
        asyncio.run(_commit(lab, _everywhere(lab, OffsetAndMetadata(10_000, f"penstock1 {lab.topics.results}=0"))))
        lab.send(200, 200)
        with lab.running():
            tally = results.wait_for(400)

    assert (tally.lost(400), tally.duplicates) == ([], [])


def test_a_late_commit_of_the_former_topic_is_known_by_its_id_when_the_recreated_one_is_longer(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running():
            results.wait_for(200)
            eventually(lambda: sum(lab.committed().values()) == 200, within_s=10)
        former = asyncio.run(_commits(lab))
        recreate(kafka, lab.events)
        lab.send(200, 600)
        asyncio.run(_commit(lab, former))
        with lab.running() as worker:
            tally = results.wait_for(800)
            worker.wait_for("commit.foreign")
            eventually(lambda: sum(lab.committed().values()) == 600, within_s=10)
        with lab.running() as worker:
            tally = results.wait_for(800)

            assert "commit.foreign" not in worker.output

    assert sum(commit.offset for commit in former.values()) == 200
    assert (tally.lost(800), tally.duplicates) == ([], [])


def test_a_topic_that_is_recreated_behind_a_workers_back_and_longer_than_before_loses_nothing(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """The consumer reads on in the new log at the offset of the former one."""
    lab = WorkerLab(kafka, tmp_path, worker={"session_timeout_s": 60, "rebalance_timeout_s": 60})
    lab.create_topics()
    lab.send(0, 200)
    watchful = ChildProcess("tests.kafka.watchful_worker", "worker", "--config", str(lab.config), grace_s=15)
    with Outcomes(kafka, lab.topics.results) as results, watchful as worker:
        wait_for_partitions(worker)
        results.wait_for(200)
        eventually(lambda: sum(lab.committed().values()) == 200, within_s=10)
        worker.signal(signal.SIGSTOP)
        recreate(kafka, lab.events)
        lab.send(200, 600)
        worker.signal(signal.SIGCONT)
        tally = results.wait_for(800)
        eventually(lambda: sum(lab.committed().values()) == 600, within_s=10)
        worker.wait_for("commit.foreign")

        assert worker.output.count("topic.recreated") == 1
    assert (tally.lost(800), tally.duplicates) == ([], [])


@pytest.mark.long
def test_a_topic_that_is_recreated_behind_two_workers_backs_loses_nothing(kafka: KafkaLab, tmp_path: Path) -> None:
    """The one that does not lead the group gets its partitions again in the same generation."""
    lab = WorkerLab(kafka, tmp_path, worker={"session_timeout_s": 60, "rebalance_timeout_s": 60})
    lab.create_topics()
    lab.send(0, 200)
    first, second = (
        ChildProcess("tests.kafka.watchful_worker", "worker", "--config", str(lab.config), grace_s=15) for _ in range(2)
    )
    with Outcomes(kafka, lab.topics.results) as results, first, second:
        for worker in (first, second):
            wait_for_partitions(worker)
        results.wait_for(200)
        eventually(lambda: sum(lab.committed().values()) == 200, within_s=20)
        for worker in (first, second):
            worker.signal(signal.SIGSTOP)
        recreate(kafka, lab.events)
        lab.send(200, 600)
        for worker in (first, second):
            worker.signal(signal.SIGCONT)
        tally = results.wait_for(800, within_s=60)
        eventually(lambda: sum(lab.committed().values()) == 600, within_s=20)

    assert (tally.lost(800), tally.duplicates) == ([], [])


def test_answers_of_a_recreated_result_topic_are_found_when_it_is_longer_than_the_mark(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """The mark's offsets are of the former topic, and the answers that a killed worker left lie below them."""
    with GatedModel(gate_from=600) as model:
        lab = WorkerLab(
            kafka,
            tmp_path,
            provider={"kind": "openai", "base_url": model.url},
            # Nothing is committed before the kill. A stable instance id, so that nobody waits for the killed worker.
            worker={"commit_interval_s": 3600, "instance_id": "one"},
        )
        lab.create_topics()
        lab.send(0, 200)
        with Outcomes(kafka, lab.topics.results) as former, lab.running():
            former.wait_for(200)
        before = sum(lab.committed().values())
        recreate(kafka, lab.topics.results)
        lab.send(200, 404)
        with Outcomes(kafka, lab.topics.results) as results:
            with lab.running() as worker:
                results.wait_for(400)
                eventually(lambda: model.waiting == 4, within_s=20)
                worker.signal(signal.SIGKILL)
                worker.wait()
            killed_at = sum(lab.committed().values())
            model.open()
            with lab.running(worker__commit_interval_s="0.3") as worker:
                eventually(lambda: sum(lab.committed().values()) == 604, within_s=60)
                tally = results.wait_for(404)

    assert (before, killed_at) == (200, 200)
    assert (len(tally.by_id), tally.duplicates) == (404, [])
    assert model.extra == 4
    assert worker.output.count("mark.foreign") == 1


def test_a_result_topic_that_is_recreated_under_a_running_worker_gets_marks_of_its_own(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    watchful = ChildProcess("tests.kafka.watchful_worker", "worker", "--config", str(lab.config), grace_s=15)
    with watchful as worker:
        wait_for_partitions(worker)
        with Outcomes(kafka, lab.topics.results) as former:
            former.wait_for(200)
        eventually(lambda: sum(lab.committed().values()) == 200, within_s=10)
        eventually(lambda: sum(_starts(lab)) == 200, within_s=20)
        recreate(kafka, lab.topics.results)
        eventually(lambda: _starts(lab) == [0] * PARTITIONS, within_s=30)
        lab.send(200, 200)
        with Outcomes(kafka, lab.topics.results) as results:
            tally = results.wait_for(200)
        eventually(lambda: sum(_starts(lab)) == 200, within_s=20)

        assert worker.output.count("topic.recreated") == 1
    assert (tally.lost(400), tally.duplicates) == ([f"e{number}" for number in range(200)], [])


def _starts(lab: WorkerLab) -> list[int]:
    """Return from where on the committed marks have the result topic read, per partition."""
    marks = [decode_mark(commit.metadata) for commit in asyncio.run(_commits(lab)).values()]
    return [mark.starts[lab.topics.results] for mark in marks if mark is not None]


def _everywhere(lab: WorkerLab, commit: OffsetAndMetadata) -> Commits:
    return dict.fromkeys((TopicPartition(lab.events, number) for number in range(PARTITIONS)), commit)


async def _commits(lab: WorkerLab) -> Commits:
    """Return what the group has committed of the standard lane, marks included."""
    admin = AIOKafkaAdminClient(bootstrap_servers=lab.kafka.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(lab.prefix)
    finally:
        await admin.close()
    return {tp: commit for tp, commit in found.items() if tp.topic == lab.events}


async def _commit(lab: WorkerLab, commits: Commits) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=lab.kafka.bootstrap, group_id=lab.prefix, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign(list(commits))
        await consumer.commit(commits)
    finally:
        await consumer.stop()


def test_a_group_whose_commits_kafka_has_forgotten_pays_for_nothing_twice(kafka: KafkaLab, tmp_path: Path) -> None:
    """As it does a week after the last worker has left."""
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running():
            results.wait_for(200)
        lab.forget_offsets()
        lab.send(200, 100)
        with lab.running():
            tally = results.wait_for(300)
            eventually(lambda: sum(lab.committed().values()) == 300, within_s=20)

    assert (tally.lost(300), tally.duplicates) == ([], [])
