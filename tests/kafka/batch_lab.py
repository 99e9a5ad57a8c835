"""Batch jobs on real Kafka: the real program, its inputs, and what came out."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from contracts.batch_jobs import BATCH_JOB
from contracts.settings import load
from producers.log_reader import LogReader
from tests.kafka.worker_lab import PARTITIONS, WorkerLab, headers_of
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ROOT, ChildProcess


class BatchLab:
    """`penstock batch` at work on a lab's topics.

    Args:
        lab: the installation.
        folder: working directory of the program.
    """

    def __init__(self, lab: WorkerLab, folder: Path) -> None:
        self.lab = lab
        self._folder = folder
        lab.create_topics()
        lab.kafka.create_named(lab.topics.batch_jobs, partitions=PARTITIONS, config={"cleanup.policy": "compact"})

    def start(self, *args: str, program: str = "gateways.cli", **env: str) -> ChildProcess:
        """Return the program, not started yet."""
        options = ("--config", str(self.lab.config))
        # It does not run where the code is.
        environ = {"PENSTOCK_BATCH_PROCESS__HEALTH_PORT": "0", "PYTHONPATH": str(ROOT), **env}
        return ChildProcess(program, "batch", *args, *options, cwd=self._folder, env=environ)

    def __call__(self, *args: str, code: int = 0, within_s: float = 90) -> str:
        """Run it and return its output."""
        with self.start(*args) as process:
            assert process.wait(within_s) == code, process.output
            return process.output

    def sent(self) -> int:
        """Return how many offsets the bulk lane has used, committed or not."""
        with LogReader(load(self.lab.config).kafka) as reader:
            return sum(reader.ends(self.lab.topics.events("bulk")))

    def events(self) -> Counter[str]:
        """Return the ids of all batch events that a worker would see, and how often each is there."""
        return events_of(self.lab.kafka, self.lab.topics.events("bulk"))


def events_of(kafka: KafkaLab, topic: str) -> Counter[str]:
    """Read a topic to its end, as the workers do: committed records only."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": kafka.name("batch-events"),
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        found: Counter[str] = Counter()
        still_open = set(range(PARTITIONS))
        while still_open:
            for message in consumer.consume(1000, 0.5):
                if message.error() is not None:
                    still_open.discard(message.partition() or 0)
                    continue
                headers = dict(headers_of(message))
                if f"ce_{BATCH_JOB}" in headers:
                    found[headers["ce_id"].decode()] += 1
        return found
    finally:
        consumer.close()


def write_lines(path: Path, documents: Sequence[Any]) -> Path:
    """Write an input; text is taken as it is."""
    lines = (one if isinstance(one, str) else json.dumps(one) for one in documents)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read_lines(path: Path) -> list[Any]:
    """Read an output."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
