"""A log whose leader changes without a loss: each begins a new epoch, and nothing is taken for cut."""

from pathlib import Path

import pytest

from tests.kafka.test_worker_sources import send_in_transactions
from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker
from tests.support import eventually

pytestmark = [pytest.mark.timeout(150), pytest.mark.long]


def test_a_log_whose_leader_changes_without_a_loss_is_not_taken_for_cut(kafka: KafkaLab, tmp_path: Path) -> None:
    """Epochs end with markers and aborted records, and the last one has nothing else when the next worker starts."""
    broker = kafka.broker
    if not isinstance(broker, JvmBroker):
        pytest.skip("the epochs can be seen only of a broker of our own")
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    aborted = (range(100), False)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running() as worker:
            send_in_transactions(lab, [(range(100), True), aborted])
            results.wait_for(100)
            broker.kill()
            broker.start()
            send_in_transactions(lab, [aborted, (range(100, 200), True)])
            results.wait_for(200)
            broker.stop()
            broker.start()
            send_in_transactions(lab, [aborted])
            eventually(lambda: lab.committed() == lab.ends(), within_s=20)
            worker.stop()
            output = worker.output
        with lab.running() as worker:
            lab.send(200, 100)
            tally = results.wait_for(300)
            output += worker.output

    assert [_epochs(broker, lab, number) for number in range(PARTITIONS)] == [3] * PARTITIONS
    assert ("log.cut" in output, "commit.ahead" in output) == (False, False)
    assert (tally.lost(300), tally.duplicates) == ([], [])


def _epochs(broker: JvmBroker, lab: WorkerLab, number: int) -> int:
    """Return how many epochs a partition's log has."""
    file = broker.data / f"{lab.events}-{number}" / "leader-epoch-checkpoint"
    # Behind the version of its format.
    return int(file.read_text("utf-8").splitlines()[1])
