"""The SQS door under SIGKILL, at each step between queue and log, on real Kafka and moto's server: lost, repeated.

Bounded: so many kills, each start at most some seconds; the last run ends when the queue is empty.
"""

import random
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Figure
from bench.runs import RunFailedError
from contracts.topics import Topics
from tests.awslab.server import CREDENTIALS, REGION, AwsLab, Queue
from tests.support import ChildProcess, eventually

STEPS = ("received", "produced", "acked", "deleted")
IN_FLIGHT = 50
GROUPS = 20
_PARTITIONS = 4
_VISIBILITY_S = 2
_LIMIT_S = 90.0


@dataclass
class Ledger:
    """What came of the messages.

    Attributes:
        disorder: groups whose first copies are not in the order in which they were sent.
    """

    sent: int
    kills: int
    found: Counter[str] = field(default_factory=Counter)
    disorder: set[str] = field(default_factory=set)
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Messages without an event."""
        return self.sent - len(self.found)

    @property
    def repeated(self) -> int:
        """Events beyond one per message."""
        return self.found.total() - len(self.found)


def sqs(bootstrap: str, seed: int) -> list[Figure]:
    """Measure a FIFO and a standard queue, three kills at each step."""
    figures: list[Figure] = []
    for kind in ("fifo", "standard"):
        ledger = kill_at_each_step(bootstrap, seed, messages=1_000, kills_per_step=3, is_fifo=kind == "fifo")
        most = ledger.kills * IN_FLIGHT
        figures += [
            Figure(f"{kind}: messages", ledger.sent, "messages"),
            Figure(f"{kind}: SIGKILLs, by turns at each step", ledger.kills, "kills"),
            Figure(f"{kind}: lost", ledger.lost, "messages", "0", ledger.lost == 0, is_strict=True),
            Figure(
                f"{kind}: repeated events", ledger.repeated, "events", f"<= kills x {IN_FLIGHT} in flight",
                ledger.repeated <= most, is_strict=True,
            ),
            Figure(f"{kind}: duration", round(ledger.seconds, 1), "s"),
        ]  # fmt: skip
        if kind == "fifo":
            broken = len(ledger.disorder)
            figures.append(Figure("fifo: groups out of order", broken, "groups", "0", broken == 0, is_strict=True))
    return figures


def kill_at_each_step(bootstrap: str, seed: int, *, messages: int, kills_per_step: int, is_fifo: bool) -> Ledger:
    """Send messages, kill the door again and again while it works on them, let it finish, and count.

    Raises:
        RunFailedError: the last run did not empty the queue in time.
    """
    rng = random.Random(seed)  # noqa: S311 - where to kill
    steps = [step for step in STEPS for _ in range(kills_per_step)]
    rng.shuffle(steps)
    with _lab(bootstrap, is_fifo=is_fifo) as lab:
        lab.send(messages)
        began_s = time.monotonic()
        for step in steps:
            # Late enough that some are done before, early enough that some are left for the next one.
            lab.run(step, rng.randint(1, max(2, messages // (2 * len(steps)))))
        lab.finish()
        ledger = Ledger(messages, len(steps), seconds=time.monotonic() - began_s)
        lab.count(ledger)
    return ledger


class _Lab:
    def __init__(self, bootstrap: str, aws: AwsLab, queue: Queue, folder: Path) -> None:
        self._bootstrap = bootstrap
        self._queue = queue
        self._is_fifo = queue.url.endswith(".fifo")
        self._topics = Topics(f"b{uuid.uuid4().hex[:8]}")
        self._config = folder / "penstock.yaml"
        self._config.write_text(yaml.safe_dump(self._document(aws)), encoding="utf-8")
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        names = [self._topics.events("standard"), self._topics.dead_letters]
        for made in self._admin.create_topics([NewTopic(name, _PARTITIONS, 1) for name in names]).values():
            made.result(20)

    def _document(self, aws: AwsLab) -> dict[str, Any]:
        door = {
            "kind": "sqs", "queue_url": self._queue.url, "endpoint_url": aws.url, "region": REGION, "wait_s": 1,
            "visibility_timeout_s": _VISIBILITY_S, "max_in_flight": IN_FLIGHT, "id": "json:/id", "key": "json:/group",
            # moto locks groups by a copy that a poll makes at its beginning: it gives messages of one group to two that
            # poll at a time, which SQS does not.
            "receivers": 1 if self._is_fifo else 2,
        }  # fmt: skip
        return {
            "version": 1,
            "kafka": {"bootstrap_servers": [self._bootstrap], "topic_prefix": self._topics.prefix},
            "ingress": {"orders": door},
            "ingress_process": {"health_port": 0, "drain_timeout_s": 20},
        }

    def send(self, count: int) -> None:
        """Queue numbered messages; those of a group in the order of their numbers."""
        bodies = [f'{{"id":"m{number}","group":"g{number % GROUPS}","n":{number}}}' for number in range(count)]
        for start in range(0, count, 10):
            self._queue.send_batch(
                bodies[start : start + 10],
                [f"g{number % GROUPS}" for number in range(start, min(start + 10, count))] if self._is_fifo else [],
            )

    def _child(self, step: str, after: int) -> ChildProcess:
        # A bound that the run itself cannot pass.
        return ChildProcess(
            "bench.patterns.dying_door", str(self._config), step, str(after), env={**CREDENTIALS}, grace_s=25.0
        )

    def run(self, step: str, after: int) -> None:
        """Run the door until it has killed itself."""
        with self._child(step, after) as door:
            door.wait(_LIMIT_S)

    def finish(self) -> None:
        """Run it until nothing is left, then end it in order."""
        with self._child("never", 0) as door:
            try:
                eventually(lambda: self._queue.is_empty, _LIMIT_S)
            except AssertionError as error:
                message = f"the queue is not empty: {self._queue.counts()}\n{door.output}"
                raise RunFailedError(message) from error

    def count(self, ledger: Ledger) -> None:
        """Read the event topic to its end."""
        last: dict[str, int] = {}
        for message in self._records():
            number, key = int((message.value() or b"").split(b'"n":')[1][:-1]), (message.key() or b"").decode()
            ledger.found[f"m{number}"] += 1
            if ledger.found[f"m{number}"] > 1:
                continue
            if number < last.get(key, -1):
                ledger.disorder.add(key)
            last[key] = number

    def _records(self) -> Iterator[Any]:
        options = {"bootstrap.servers": self._bootstrap, "group.id": "ledger", "enable.partition.eof": True}
        consumer = Consumer({**options, "enable.auto.commit": False, "log_level": 0})
        topic = self._topics.events("standard")
        try:
            consumer.assign([TopicPartition(topic, number, 0) for number in range(_PARTITIONS)])
            still_open = set(range(_PARTITIONS))
            while still_open:
                for message in consumer.consume(1000, 0.5):
                    if message.error() is None:
                        yield message
                    else:
                        still_open.discard(message.partition() or 0)
        finally:
            consumer.close()

    def close(self) -> None:
        """Remove the topics."""
        names = [self._topics.events("standard"), self._topics.dead_letters]
        for gone in self._admin.delete_topics(names, operation_timeout=20).values():
            gone.result(20)


@contextmanager
def _lab(bootstrap: str, *, is_fifo: bool) -> Iterator[_Lab]:
    aws = AwsLab()
    aws.start()
    try:
        name = f"orders-{uuid.uuid4().hex[:8]}"
        attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if is_fifo else {}
        queue = aws.queue(f"{name}.fifo" if is_fifo else name, **attributes)
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
            lab = _Lab(bootstrap, aws, queue, Path(folder))
            try:
                yield lab
            finally:
                lab.close()
    finally:
        aws.close()
