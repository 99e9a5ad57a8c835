"""Doors out on real Kafka: topics, outcomes on them, a door that does as it is told, and a clock that can be set."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from contracts.codec import Record, RecordHeaders, delivery_note
from contracts.kafka_config import headers_of, librdkafka_config
from contracts.payloads import DeliveryNote
from contracts.settings import KafkaSettings, ProducerSettings
from contracts.settings.egress import DoorSection, EgressProcess
from contracts.topics import DELIVERY_TIERS, Topics
from gateways.egress.base import DELIVERED, Item, PlainDoor, Shape, Verdict
from gateways.egress.group import group_config
from gateways.egress.runner import DoorRunner, Surroundings
from producers.producer import KafkaProducer
from tests.kafkalab.fixtures import KafkaLab
from tests.suites.egress import result_item
from tests.support import eventually

PARTITIONS = 2


class ShiftedClock:
    """The real clock, and what it was put forward."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        """Return Unix seconds."""
        return time.time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Put it forward."""
        self._ahead_s += seconds


@dataclass
class Told(PlainDoor):
    """A door that answers what `answer` says, and remembers what it was asked.

    Attributes:
        where: names an item's destination.
        waits: whether an item's delivery waits for the gate.
    """

    shape: Shape = field(default_factory=Shape)
    answer: Callable[[Item], Verdict] = lambda _item: DELIVERED
    where: Callable[[Item], str] = lambda _item: ""
    waits: Callable[[Item], bool] = lambda _item: True
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[Item] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def start(self) -> None:
        """Need nothing."""

    async def aclose(self) -> None:
        """Need nothing."""

    def destination(self, item: Item) -> str:
        """Say where."""
        return self.where(item)

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Answer as told."""
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.asked += items
        try:
            if any(map(self.waits, items)):
                await self.gate.wait()
            verdicts = [self.answer(item) for item in items]
        finally:
            self.in_flight -= 1
        self.delivered += [
            item.outcome.event_id for item, verdict in zip(items, verdicts, strict=True) if verdict == DELIVERED
        ]
        return verdicts


class EgressLab:
    """One test's topics and runners; an async context manager that ends what still runs."""

    def __init__(self, kafka: KafkaLab) -> None:
        self.lab = kafka
        self.kafka = KafkaSettings(bootstrap_servers=(kafka.bootstrap,), topic_prefix=kafka.prefix)
        self.topics = Topics(kafka.prefix)
        self.clock = ShiftedClock()
        names = [self.topics.results, self.topics.undelivered, *map(self.topics.deliveries, DELIVERY_TIERS)]
        kafka.create_named(*names, partitions=PARTITIONS)
        self.producer = self._make_producer()
        self._stops: dict[asyncio.Task[None], asyncio.Event] = {}

    async def __aenter__(self) -> Self:
        await self.producer.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()
        await self.producer.aclose()

    async def produce(self, record: Record) -> Any:
        """Produce, as the process does."""
        return await self.producer.produce(record)

    async def outcomes(self, count: int, *, first: int = 0, keys: int | None = None, **changes: Any) -> list[str]:
        """Put results on the topic, of as many keys as told (each its own when None); return their events' ids."""
        items = []
        for number in range(first, first + count):
            key = b"k%d" % (number if keys is None else number % keys)
            partition = number % PARTITIONS if keys is None else number % keys % PARTITIONS
            items.append(result_item(number, key=key, partition=partition, **changes))
        await asyncio.gather(
            *(
                self.producer.produce(
                    Record(self.topics.results, item.key, item.outcome.value, item.headers, item.position.partition)
                )
                for item in items
            )
        )
        return [item.outcome.event_id for item in items]

    def run(
        self,
        door: Told,
        name: str = "door",
        process: EgressProcess | None = None,
        app_id: str | None = None,
        **settings: Any,
    ) -> asyncio.Task[None]:
        """Start a runner; `runner` is the last one."""
        around = Surroundings(
            consumer=librdkafka_config(self.kafka),
            app_id=app_id or self.lab.prefix,
            topics=self.topics,
            result_topics=(self.topics.results,),
            routes=(),
            produce=self.produce,
            process=process or EgressProcess(drain_timeout_s=5),
            clock=self.clock,
        )
        runner = self.runner = DoorRunner(name, door, DoorSection.model_validate(settings), around)
        stop = asyncio.Event()
        task = asyncio.get_running_loop().create_task(runner.run(stop))
        self._stops[task] = stop
        return task

    async def stop(self, *tasks: asyncio.Task[None]) -> None:
        """End runners in order, all when none is named."""
        for task in tasks or tuple(self._stops):
            self._stops.pop(task).set()
            await task

    def join_and_vanish(self, instance_id: str, name: str = "door") -> None:
        """Join a door's group under the instance id of somebody else, as a copied configuration does, and end."""
        group = f"{self.lab.prefix}.egress.{name}"
        twin = Consumer(
            group_config(librdkafka_config(self.kafka), group, EgressProcess(instance_id=instance_id))
            | {"session.timeout.ms": 6000}
        )
        try:
            twin.subscribe([self.topics.results, *map(self.topics.deliveries, DELIVERY_TIERS)])
            eventually(lambda: twin.poll(0.1) or twin.assignment(), 30)
        finally:
            twin.close()

    async def make_anew(self, topic: str) -> None:
        """Delete a topic and create it again under its name: another log, which begins at offset 0."""
        await asyncio.to_thread(self._make_anew, topic)
        # The former client knows of no partitions for a while.
        await self.producer.aclose()
        self.producer = self._make_producer()
        await self.producer.start()

    def _make_producer(self) -> KafkaProducer:
        return KafkaProducer(self.kafka, ProducerSettings(), client_id="test", delivery_timeout_s=30)

    def _make_anew(self, topic: str) -> None:
        admin = self.lab.admin()
        admin.delete_topics([topic], operation_timeout=15)[topic].result(15)

        def is_made() -> bool:
            # Brokers forget a deleted topic one by one.
            try:
                admin.create_topics([NewTopic(topic, PARTITIONS, 1)], operation_timeout=15)[topic].result(15)
            except KafkaException:
                return False
            return True

        eventually(is_made, 30)

    def commit_again(self, commits: Sequence[TopicPartition], name: str = "door") -> None:
        """Commit for a door without members, as a late commit of a former member."""
        group = f"{self.lab.prefix}.egress.{name}"
        consumer = Consumer({"bootstrap.servers": self.lab.bootstrap, "group.id": group, "log_level": 0})
        try:
            consumer.commit(offsets=list(commits), asynchronous=False)
        finally:
            consumer.close()

    def commits(self, name: str = "door") -> list[TopicPartition]:
        """Return the commits of the result topic."""
        consumer = Consumer(
            {"bootstrap.servers": self.lab.bootstrap, "group.id": f"{self.lab.prefix}.egress.{name}", "log_level": 0}
        )
        try:
            wanted = [TopicPartition(self.topics.results, partition) for partition in range(PARTITIONS)]
            return list(consumer.committed(wanted, timeout=10))
        finally:
            consumer.close()

    def committed(self, name: str = "door") -> dict[int, int]:
        """Return the committed offsets of the result topic."""
        return {one.partition: one.offset for one in self.commits(name)}

    def read(self, topic: str) -> list[tuple[DeliveryNote, RecordHeaders, bytes | None]]:
        """Return the records of a delay topic or the undelivered topic."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.lab.bootstrap,
                "group.id": self.lab.name("reader"),
                "enable.partition.eof": True,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        found = []
        ends = 0
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
            while ends < PARTITIONS:
                message = consumer.poll(10)
                assert message is not None
                if message.error() is not None:
                    ends += 1
                    continue
                note, headers = delivery_note(headers_of(message))
                found.append((note, headers, message.value()))
        finally:
            consumer.close()
        return found
