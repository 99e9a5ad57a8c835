"""A worker reads from a replica in its own zone, and takes what it has paid for from leaders.

Three brokers of its own. Blocking: about a minute.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.worker_lab import Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.broker import KafkaUnavailableError
from tests.kafkalab.cluster import JvmCluster
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(170), pytest.mark.long]

HERE = 3
REQUESTS = "-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug"
_PARTITION = re.compile(r'"partition":(\d+),')


@pytest.fixture
def cluster() -> Iterator[JvmCluster]:
    try:
        made = JvmCluster(has_racks=True, flags=(REQUESTS,))
    except KafkaUnavailableError as error:
        pytest.skip(f"no brokers in zones: {error}")
    try:
        made.start()
        yield made
    finally:
        made.close()


class Zones(KafkaLab):
    """The cluster as tests see one broker."""

    def __init__(self, cluster: JvmCluster) -> None:
        super().__init__(cluster.brokers[0])
        self.bootstrap = cluster.bootstrap
        self._cluster = cluster

    def leaders(self, topic: str) -> dict[int, int]:
        """Return the leader of each partition."""
        found = self.admin().list_topics(topic, timeout=10).topics[topic].partitions
        return {number: part.leader for number, part in found.items()}

    def fetched(self, number: int, topic: str, client: str) -> set[int]:
        """Return the partitions that a client has asked one broker for lately."""
        lines = self._cluster.brokers[number - 1].log_tail(2000).splitlines()
        asked = (
            line.partition(f'"topic":"{topic}","partitions":[')[2].partition("]")[0]
            for line in lines
            if '"requestApiKeyName":"FETCH"' in line and f'"clientId":"{client}' in line
        )
        return {int(found) for part in asked for found in _PARTITION.findall(part)}


def test_a_worker_reads_from_the_replica_in_its_zone(cluster: JvmCluster, tmp_path: Path) -> None:
    kafka = Zones(cluster)
    lab = WorkerLab(kafka, tmp_path)
    create = ChildProcess(
        "gateways.cli",
        "topics",
        "create",
        "--wait",
        "30",
        "--config",
        str(lab.config),
        env={"PENSTOCK_KAFKA__PARTITIONS": "4"},
    )
    with create:
        assert create.wait(60) == 0, create.output
    leaders = kafka.leaders(lab.events)
    elsewhere = {partition for partition, leader in leaders.items() if leader != HERE}
    assert elsewhere
    with lab.worker(kafka__client_rack=f"zone-{HERE}") as worker, Outcomes(kafka, lab.topics.results) as results:
        wait_for_partitions(worker)
        lab.send(0, 200)
        tally = results.wait_for(200)
        eventually(lambda: elsewhere <= kafka.fetched(HERE, lab.events, f"{lab.prefix}."), 30)
        lab.send(200, 200)
        tally = results.wait_for(400)
    assert (tally.lost(400), tally.duplicates, tally.disorder) == ([], [], [])
