"""A broker that loses the end of an event log (power lost, a leader elected out of sync) under a running worker.

The topic and its id stay. One broker is enough: it is killed, and what it would not have had is cut from its disk.
"""

import re
from pathlib import Path

import pytest

from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, cut_log
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker
from tests.support import eventually

pytestmark = [pytest.mark.timeout(150), pytest.mark.long]


@pytest.mark.parametrize("more", [100, 400])
@pytest.mark.parametrize("has_grown", [False, True])
def test_a_log_that_loses_its_end_under_a_running_worker_loses_nothing_more_and_pays_nothing_again(
    kafka: KafkaLab, tmp_path: Path, more: int, *, has_grown: bool
) -> None:
    """It is shorter than before when the worker looks again, or has grown meanwhile: with fewer events or with more."""
    broker, lab, ends = _with_400_events(kafka, tmp_path)
    (other,) = kafka.create("other", partitions=PARTITIONS)
    if has_grown:
        lab.send(400, more, topic=other)
    with Outcomes(kafka, lab.topics.results) as results, lab.running() as worker:
        results.wait_for(400)
        eventually(lambda: sum(lab.committed().values()) == 400, within_s=10)
        broker.kill()
        for number, end in ends.items():
            cut_log(broker.data / f"{lab.events}-{number}", end, broker.data / f"{other}-{number}")
        broker.start()
        if not has_grown:
            lab.send(400, more)
        results.wait_for(400 + more)
        lab.send(400 + more, 400)
        tally = results.wait_for(800 + more)
        eventually(lambda: sum(lab.committed().values()) == 600 + more, within_s=20)

        told = _told(worker.output)
        assert worker.process.poll() is None
        assert len(told) == PARTITIONS
        # What was put on the disk has the epoch of what was there, so that it hides as many.
        assert sum(told) == 200 or has_grown
        assert sum(told) <= 200
    assert (tally.lost(800 + more), tally.duplicates) == ([], [])


def test_a_worker_that_starts_behind_a_log_that_was_cut_and_has_grown_past_its_commit_leaves_no_event_out(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    broker, lab, ends = _with_400_events(kafka, tmp_path)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running() as worker:
            results.wait_for(400)
            eventually(lambda: sum(lab.committed().values()) == 400, within_s=10)
            worker.stop()
        broker.kill()
        for number, end in ends.items():
            cut_log(broker.data / f"{lab.events}-{number}", end)
        broker.start()
        lab.send(400, 400)
        with lab.running() as worker:
            tally = results.wait_for(800)
            eventually(lambda: sum(lab.committed().values()) == 600, within_s=20)
            told = _told(worker.output)
    assert (tally.lost(800), tally.duplicates) == ([], [])
    assert (len(told), sum(told)) == (PARTITIONS, 200)


def _with_400_events(kafka: KafkaLab, folder: Path) -> tuple[JvmBroker, WorkerLab, dict[int, int]]:
    """Return a broker whose data can be cut, a lab with 400 events, and where partitions ended with half of them."""
    broker = kafka.broker
    if not isinstance(broker, JvmBroker):
        pytest.skip("only the data of a broker of our own can be cut")
    lab = WorkerLab(kafka, folder)
    lab.create_topics()
    lab.send(0, 200)
    ends = lab.ends()
    lab.send(200, 200)
    return broker, lab, ends


def _told(output: str) -> list[int]:
    """Return what was said to be lost of each partition."""
    return [int(lost) for lost in re.findall(r'"lost":(\d+),.*"event":"(?:log\.cut|commit\.ahead)"', output)]
