"""Workers on real Kafka: their topics, their events, what came out, and the sums that must hold.

Blocking: every wait is bounded; a run of some thousand events takes seconds.
"""

import contextlib
import json
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import yaml
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, Producer, TopicPartition

from contracts.codec import Headers, encode_event
from contracts.envelope import Event
from contracts.topics import LANES, Topics
from tests.kafkalab.commits import Commits
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, ask, eventually

PARTITIONS = 4
KEYS = 50
_OFFSET = struct.Struct(">q")
_OFFSET_AND_LENGTH = struct.Struct(">qi")
# A stable instance id, for `worker(**STATIC)`: who comes after a killed worker need not wait for its session to end.
STATIC = {"worker__instance_id": "one"}


@dataclass
class Tally:
    """What lies on a result topic."""

    by_id: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    disorder: list[str] = field(default_factory=list)
    _last: dict[bytes | None, int] = field(default_factory=dict)

    def note(self, message: Message) -> None:
        """Count a terminal record; ids are `e<number>`, in the order in which events of a key were sent."""
        headers = dict(headers_of(message))
        name = headers["ce_eventid"].decode()
        self.by_id[name] += 1
        self.kinds[headers["ce_type"].decode()] += 1
        if self.by_id[name] == 1 and name[1:].isdecimal():
            number, key = int(name[1:]), message.key()
            if number < self._last.get(key, -1):
                self.disorder.append(name)
            self._last[key] = max(number, self._last.get(key, -1))

    @property
    def duplicates(self) -> list[str]:
        """Return the ids with more than one terminal record."""
        return [name for name, count in self.by_id.items() if count > 1]

    def lost(self, count: int) -> list[str]:
        """Return the ids among `e0 ...` without a terminal record."""
        return [f"e{n}" for n in range(count) if f"e{n}" not in self.by_id]


class WorkerLab:
    """One installation on the test's broker.

    Args:
        kafka: the test's corner of the broker.
        folder: for the configuration file.
        script: of the fake provider.
        worker, route: changes to the sections.
        provider: in place of the fake one.
        more: further sections of the configuration.
    """

    def __init__(
        self,
        kafka: KafkaLab,
        folder: Path,
        script: Sequence[Mapping[str, Any]] = (),
        *,
        worker: Mapping[str, Any] | None = None,
        route: Mapping[str, Any] | None = None,
        provider: Mapping[str, Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.kafka = kafka
        self.prefix = kafka.prefix
        self.topics = Topics(self.prefix)
        self.events = self.topics.events("standard")
        self.config = folder / f"{self.prefix}.yaml"
        document = {
            "version": 1,
            "kafka": {"bootstrap_servers": kafka.bootstrap, "topic_prefix": self.prefix},
            "providers": {"p": dict(provider or {"kind": "fake", "script": [dict(step) for step in script]})},
            "models": {"m": {"provider": "p", "model": "m-1"}},
            "routes": [{"name": "r", "prompt": {"user": "{{ text }}"}, "model": "m", **(route or {})}],
            "worker": {
                "app_id": self.prefix,
                "max_in_flight": 32,
                "commit_interval_s": 0.5,
                "session_timeout_s": 6,
                "rebalance_timeout_s": 20,
                "drain_timeout_s": 10,
                "health_port": 0,
                **(worker or {}),
            },
            **(more or {}),
        }
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def create_topics(self, results: int = PARTITIONS) -> None:
        """Create every topic a worker needs."""
        self.kafka.create_named(
            *(self.topics.events(lane) for lane in LANES),
            self.topics.dead_letters,
            self.topics.retries,
            partitions=PARTITIONS,
        )
        self.kafka.create_named(self.topics.results, partitions=results)

    def worker(self, **settings: str) -> ChildProcess:
        """Return a worker, not started yet; settings such as `worker__instance_id` override the file."""
        env = {f"PENSTOCK_{name.upper()}": text for name, text in settings.items()}
        return ChildProcess("streams", "worker", "--config", str(self.config), env=env, grace_s=15)

    @contextlib.contextmanager
    def running(self, **settings: str) -> Iterator[ChildProcess]:
        """Run a worker that has its partitions."""
        with self.worker(**settings) as process:
            wait_for_partitions(process)
            yield process

    def send(self, first: int, count: int, *, keys: int = KEYS, topic: str | None = None) -> None:
        """Produce events `e<first> ...`."""
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "enable.idempotence": True, "log_level": 0})
        for number in range(first, first + count):
            event = Event(
                id=f"e{number}",
                source="s",
                type="t",
                data=json.dumps({"n": number}).encode(),
                extensions={"partitionkey": f"k{number % keys}"},
            )
            producer.produce(topic or self.events, key=event.key, value=event.data, headers=list(encode_event(event)))
        assert producer.flush(30) == 0

    def committed(self) -> dict[int, int]:
        """Return the committed offset per partition of the standard lane, where there is one."""
        with contextlib.closing(Commits(self.kafka.bootstrap, self.prefix)) as commits:
            found = commits.read([self.events], range(PARTITIONS))
        return {number: offset for (_, number), offset in found.items()}

    def ends(self, topic: str | None = None) -> dict[int, int]:
        """Return the end of each partition of the standard lane, or of another topic."""
        with contextlib.closing(
            Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": self.kafka.name("ends"), "log_level": 0})
        ) as consumer:
            places = [TopicPartition(topic or self.events, number) for number in range(PARTITIONS)]
            return {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}

    def reset_offsets(self) -> None:
        """Set the group back to the beginning, as an operator's tool does; nobody may be in the group."""
        partitions = [TopicPartition(self.events, n, 0) for n in range(PARTITIONS)]
        admin = self.kafka.admin()

        def reset() -> bool:
            request = ConsumerGroupTopicPartitions(self.prefix, partitions)
            return bool(admin.alter_consumer_group_offsets([request])[self.prefix].result(15))

        eventually(lambda: _worked(reset), within_s=20)

    def forget_offsets(self) -> None:
        """Have Kafka forget all commits of the group; nobody may be in the group."""
        admin = self.kafka.admin()

        def forget() -> bool:
            admin.delete_consumer_groups([self.prefix])[self.prefix].result(15)
            return True

        eventually(lambda: _worked(forget), within_s=20)


def _worked(act: Any) -> bool:
    from confluent_kafka import KafkaException

    with contextlib.suppress(KafkaException):
        return bool(act())
    return False


def recreate(kafka: KafkaLab, topic: str, partitions: int = PARTITIONS) -> None:
    """Delete a topic of the test and make it anew, empty, under the same name."""
    from confluent_kafka import KafkaException

    admin = kafka.admin()
    admin.delete_topics([topic], operation_timeout=15)[topic].result(15)

    def recreated() -> bool:
        try:
            kafka.create_named(topic, partitions=partitions)
        except KafkaException:
            return False
        kafka._created.remove(topic)
        return True

    eventually(recreated, within_s=20)


def cut_log(folder: Path, end: int, other: Path | None = None) -> None:
    """Cut the only segment of a partition at the batch that begins at an offset; go on with the batches of another.

    Its broker must not run.
    """
    segment = folder / f"{0:020}.log"
    data = segment.read_bytes()
    kept = next((place for place, offset in _batches(data) if offset >= end), len(data))
    more = bytearray((other / segment.name).read_bytes() if other else b"")
    for place, offset in tuple(_batches(more)):
        # The checksum does not cover it.
        _OFFSET.pack_into(more, place, end + offset)
    segment.write_bytes(data[:kept] + more)


def _batches(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    place = 0
    while place < len(data):
        offset, length = _OFFSET_AND_LENGTH.unpack_from(data, place)
        yield place, offset
        place += _OFFSET_AND_LENGTH.size + length


def wait_for_partitions(process: ChildProcess, times: int = 1, within_s: float = 40.0) -> None:
    """Return when a worker has been given partitions so many times."""
    process.wait_for(rf"(?:partitions\.assigned[\s\S]*?){{{times}}}", within_s)


def calls_in_flight(process: ChildProcess) -> float:
    """Return how many model calls a worker says are under way, on its metrics page; 0 before the first."""
    address = re.search(r"worker health on (\S+)", process.output)
    if address is None:
        return 0.0
    page = ask(f"{address[1]}/metrics").decode()
    found = re.search(r"^penstock_fm_inflight\{.*\} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def headers_of(message: Message) -> Headers:
    """Return a record's headers in order."""
    return cast("Headers", message.headers() or [])


class Outcomes:
    """Reads a topic from its beginning."""

    def __init__(self, kafka: KafkaLab, topic: str, partitions: int = PARTITIONS) -> None:
        self.tally = Tally()
        self.messages: list[Message] = []
        self._consumer = Consumer(
            {"bootstrap.servers": kafka.bootstrap, "group.id": kafka.name("outcomes"), "log_level": 0}
        )
        self._consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._consumer.close()

    def read(self, timeout_s: float = 0.2) -> Tally:
        """Read what is there."""
        for message in self._consumer.consume(500, timeout_s):
            if message.error() is None:
                self.messages.append(message)
                if any(name == "ce_eventid" for name, _ in headers_of(message)):
                    self.tally.note(message)
        return self.tally

    def wait_for(self, count: int, within_s: float = 60.0) -> Tally:
        """Read until so many events have ended, and a little longer, for duplicates."""
        eventually(lambda: len(self.read().by_id) >= count, within_s)
        for _ in range(3):
            self.read(0.3)
        return self.tally
