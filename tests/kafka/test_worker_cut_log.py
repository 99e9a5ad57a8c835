"""A broker that loses the end of an event log (power lost, a leader elected out of sync) under a running worker.

The topic and its id stay. One broker is enough: it is killed, and what it would not have had is cut from its disk.
"""

import re
import struct
from pathlib import Path

import pytest

from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker
from tests.support import eventually

pytestmark = [pytest.mark.timeout(150), pytest.mark.long]

_OFFSET_AND_LENGTH = struct.Struct(">qi")


def test_a_log_that_loses_its_end_under_a_running_worker_loses_nothing_more_and_pays_nothing_again(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    broker = kafka.broker
    if not isinstance(broker, JvmBroker):
        pytest.skip("only the data of a broker of our own can be cut")
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 200)
    ends = _ends(lab)
    lab.send(200, 200)
    with Outcomes(kafka, lab.topics.results) as results, lab.running() as worker:
        results.wait_for(400)
        eventually(lambda: sum(lab.committed().values()) == 400, within_s=10)
        broker.kill()
        for number, end in ends.items():
            _cut(broker.data / f"{lab.events}-{number}", end)
        broker.start()
        lab.send(400, 100)
        results.wait_for(500)
        lab.send(500, 400)
        tally = results.wait_for(900)
        eventually(lambda: sum(lab.committed().values()) == 700, within_s=20)

        told = [int(lost) for lost in re.findall(r'"lost":(\d+),.*"event":"(?:log\.cut|commit\.ahead)"', worker.output)]
        assert worker.process.poll() is None
        assert len(told) == PARTITIONS
        assert 100 <= sum(told) <= 200
    assert (tally.lost(900), tally.duplicates) == ([], [])


def _ends(lab: WorkerLab) -> dict[int, int]:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": lab.kafka.bootstrap, "group.id": lab.kafka.name("ends")})
    try:
        places = [TopicPartition(lab.events, number) for number in range(PARTITIONS)]
        return {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
    finally:
        consumer.close()


def _cut(folder: Path, end: int) -> None:
    """Cut the only segment of a partition at the batch that begins at an offset."""
    segment = folder / f"{0:020}.log"
    data = segment.read_bytes()
    place = 0
    while place < len(data):
        offset, length = _OFFSET_AND_LENGTH.unpack_from(data, place)
        if offset >= end:
            break
        place += _OFFSET_AND_LENGTH.size + length
    assert place < len(data)
    segment.write_bytes(data[:place])
