"""SIGKILL at exact points of an event: inside the call, before the produce, on the way to the log, before the commit.

The worker does not commit by itself here, so that what is found again is found in the result topic. docs/pay-once.md
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.kafka.gated_model import GatedModel
from tests.kafka.worker_lab import PARTITIONS, Outcomes, Tally, WorkerLab, calls_in_flight
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(150)

IN_FLIGHT = 16
DONE = 20
EVENTS = DONE + IN_FLIGHT


@pytest.fixture
def model() -> Iterator[GatedModel]:
    with GatedModel(gate_from=DONE) as server:
        yield server


@pytest.fixture
def lab(kafka: KafkaLab, tmp_path: Path, model: GatedModel) -> WorkerLab:
    """Give events of which 20 have results, and 16 are inside their calls once a worker runs."""
    made = WorkerLab(
        kafka,
        tmp_path,
        provider={"kind": "openai", "base_url": model.url},
        # A stable instance id, so that nobody waits for the killed worker's session.
        worker={"max_in_flight": IN_FLIGHT, "commit_interval_s": 3600, "instance_id": "one"},
    )
    made.create_topics()
    made.send(0, EVENTS, keys=EVENTS)
    return made


def on_topic(lab: WorkerLab) -> int:
    """Return how many results the log has; 0 while a partition has no leader."""
    consumer = Consumer({"bootstrap.servers": lab.kafka.bootstrap, "group.id": lab.kafka.name("ends"), "log_level": 0})
    try:
        places = (TopicPartition(lab.topics.results, number) for number in range(PARTITIONS))
        return sum(consumer.get_watermark_offsets(place, timeout=20)[1] for place in places)
    except KafkaException:
        return 0
    finally:
        consumer.close()


def wait_until_inside(lab: WorkerLab, model: GatedModel) -> None:
    """Return once 16 calls are under way and the 20 other events have their results."""
    eventually(lambda: model.waiting == IN_FLIGHT and on_topic(lab) == DONE, within_s=40)


def wait_until_answered(worker: ChildProcess, model: GatedModel) -> None:
    """Return once the worker has every answer."""
    eventually(lambda: model.answered == EVENTS and calls_in_flight(worker) == 0, within_s=10)


def finished_by_another(lab: WorkerLab) -> Tally:
    """Run a worker until everything is committed."""
    with Outcomes(lab.kafka, lab.topics.results) as results, lab.running(worker__commit_interval_s="0.3"):
        eventually(lambda: sum(lab.committed().values()) == EVENTS, within_s=60)
        return results.wait_for(EVENTS)


def whole(tally: Tally) -> bool:
    return (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])


def test_a_kill_inside_the_call_pays_again_for_the_calls_in_flight_and_nothing_else(
    lab: WorkerLab, model: GatedModel
) -> None:
    with lab.running() as worker:
        wait_until_inside(lab, model)
        worker.signal(signal.SIGKILL)
        worker.wait()
    model.open()
    tally = finished_by_another(lab)

    assert whole(tally)
    assert model.extra == IN_FLIGHT


@pytest.mark.long
def test_a_kill_between_call_and_produce_pays_again_for_the_answers_that_never_left(
    lab: WorkerLab, model: GatedModel
) -> None:
    if not lab.kafka.broker.is_ours:
        pytest.skip("a given broker is not killed")
    with lab.running() as worker:
        wait_until_inside(lab, model)
        lab.kafka.broker.kill()
        model.open()
        wait_until_answered(worker, model)
        worker.signal(signal.SIGKILL)
        worker.wait()
    lab.kafka.broker.start()
    left = eventually(lambda: on_topic(lab), within_s=30)
    tally = finished_by_another(lab)

    assert left == DONE
    assert whole(tally)
    assert model.extra == IN_FLIGHT


def test_a_kill_while_results_are_on_their_way_repeats_none_that_arrived(lab: WorkerLab, model: GatedModel) -> None:
    """A frozen broker has what the worker sent, and writes it when the worker is long dead."""
    if not lab.kafka.broker.is_ours:
        pytest.skip("a given broker is not frozen")
    with lab.running() as worker:
        wait_until_inside(lab, model)
        lab.kafka.broker.pause()
        try:
            model.open()
            wait_until_answered(worker, model)
            worker.signal(signal.SIGKILL)
            worker.wait()
        finally:
            lab.kafka.broker.resume()
    tally = finished_by_another(lab)

    assert whole(tally)
    assert model.extra <= IN_FLIGHT


def test_a_kill_between_produce_and_commit_pays_for_nothing_again(lab: WorkerLab, model: GatedModel) -> None:
    with lab.running() as worker:
        wait_until_inside(lab, model)
        model.open()
        eventually(lambda: on_topic(lab) == EVENTS, within_s=20)
        committed = sum(lab.committed().values())
        worker.signal(signal.SIGKILL)
        worker.wait()
    tally = finished_by_another(lab)

    assert committed == 0
    assert whole(tally)
    assert model.extra == 0
