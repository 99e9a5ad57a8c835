"""More answers than a worker keeps in memory, after a loss of the commits: they are looked for in windows."""

import signal
from pathlib import Path

import pytest

from tests.kafka.worker_lab import STATIC, Outcomes, WorkerLab, recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = pytest.mark.timeout(150)


def test_events_answered_beyond_what_is_kept_are_not_paid_again_window_by_window_and_through_a_kill(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """Four partitions share 1,000 answers, and a page has 1,024: 3,000 of one partition are three windows."""
    bounds = {"max_uncommitted": 100, "max_answers": 1000}
    lab = WorkerLab(kafka, tmp_path, worker=bounds, route={"order": "none"})
    lab.create_topics()
    lab.send(0, 3000, keys=1)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running(**STATIC) as worker:
            results.wait_for(3000)
            worker.stop()
        lab.forget_offsets()
        lab.send(3000, 100, keys=1)
        with lab.running(**STATIC) as worker:
            eventually(lambda: sum(lab.committed().values()) >= 1024, within_s=30)
            worker.signal(signal.SIGKILL)
        with lab.running(**STATIC) as worker:
            tally = results.wait_for(3100)
            eventually(lambda: sum(lab.committed().values()) == 3100, within_s=20)
            told = worker.output
    assert (tally.lost(3100), tally.duplicates) == ([], [])
    assert '"event":"answers.window"' in told


def test_two_members_that_go_by_windows_pay_for_no_answer_twice_also_through_a_kill(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """Each window of the one has the other hand over and begin its scan again, in the middle of its own."""
    bounds = {"max_uncommitted": 100, "max_answers": 1000}
    lab = WorkerLab(kafka, tmp_path, worker=bounds, route={"order": "none"})
    lab.create_topics()
    lab.send(0, 12_000)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running(**STATIC) as worker:
            results.wait_for(12_000)
            worker.stop()
        lab.forget_offsets()
        lab.send(12_000, 200)
        with lab.worker(**STATIC) as one, lab.worker(worker__instance_id="two") as two:
            for process in (one, two):
                process.wait_for(r'"event":"answers\.window"', 40)
            one.signal(signal.SIGKILL)
            with lab.running(**STATIC):
                tally = results.wait_for(12_200)
                eventually(lambda: sum(lab.committed().values()) == 12_200, within_s=60)
    assert (tally.lost(12_200), tally.duplicates) == ([], [])


def test_a_topic_made_anew_waits_for_no_events_of_the_former_one_however_many_were_answered(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """The second window begins at a commit of the new log; behind its end lie the former one's answers."""
    bounds = {"max_uncommitted": 100, "max_answers": 1000}
    lab = WorkerLab(kafka, tmp_path, worker=bounds, route={"order": "none"})
    lab.create_topics()
    lab.send(0, 4000, keys=1)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running(**STATIC) as worker:
            results.wait_for(4000)
            worker.stop()
        recreate(kafka, lab.events)
        lab.send(4000, 1500, keys=1)
        with lab.running(**STATIC) as worker:
            results.wait_for(5500)
            lab.send(5500, 1500, keys=1)
            tally = results.wait_for(7000)
            eventually(lambda: sum(lab.committed().values()) == 3000, within_s=20)
            assert worker.output.count("partitions.assigned") == 2
    assert (tally.lost(7000), tally.duplicates) == ([], [])
