"""Reading of no group on real Kafka: what was read, partitions that are added, and a stop while brokers are silent."""

import threading
import time
from collections.abc import Callable, Iterable

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions

from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from producers import log_reader
from producers.fenced import FencedProducer
from producers.kafka_client import Stopped
from producers.log_reader import Found, LogReader
from tests.kafka.worker_lab import recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

# A stop may be noticed half a second late, and end a step of a second.
SOON_S = 3.0


def produce(kafka: KafkaLab, topic: str, value: bytes, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    producer.produce(topic, value, partition=partition)
    assert producer.flush(10) == 0


def test_the_position_waits_in_front_of_an_open_transaction_and_passes_marks(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("events", partitions=1)
    produce(kafka, topic, b"first")
    open_one = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.name("tx"), "log_level": 0})
    open_one.init_transactions(10)
    open_one.begin_transaction()
    open_one.produce(topic, b"second", partition=0)
    assert open_one.flush(10) == 0
    produce(kafka, topic, b"third")
    found: list[Found] = []
    with LogReader(KafkaSettings(bootstrap_servers=[kafka.bootstrap])) as reader:
        reader.begin({topic: ()})

        def reaches(offset: int) -> bool:
            found.extend(reader.poll(0.1))
            return reader.position(topic, 0) == offset

        eventually(lambda: reaches(1))
        # Said to be at the end of what can be read now, and asked once more.
        reader.poll(0.2)

        assert (reader.position(topic, 0), reader.ends(topic)) == (1, (3,))
        open_one.commit_transaction(10)
        eventually(lambda: reaches(4))

    assert [record.value for record in found] == [b"first", b"second", b"third"]


def test_the_end_may_be_moved_to_where_partitions_end_now(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("events", partitions=1)
    produce(kafka, topic, b"first")
    found: list[Found] = []
    with LogReader(KafkaSettings(bootstrap_servers=[kafka.bootstrap])) as reader:
        reader.begin({topic: ()})

        def is_read() -> bool:
            found.extend(reader.poll(0.1))
            return reader.at_end

        eventually(is_read)
        produce(kafka, topic, b"second")
        reader.to_now()
        ends = [reader.at_end]
        eventually(is_read)
        reader.to_now()
        ends.append(reader.at_end)

    assert (ends, [record.value for record in found]) == ([False, True], [b"first", b"second"])


def test_partitions_that_are_added_are_read(kafka: KafkaLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "_WIDEN_EVERY_S", 0.0)
    (topic,) = kafka.create("events", partitions=1)
    produce(kafka, topic, b"old")
    found: list[bytes | None] = []
    with LogReader(KafkaSettings(bootstrap_servers=[kafka.bootstrap])) as reader:
        reader.begin({topic: ()})

        def has_read(count: int) -> bool:
            reader.widen()
            found.extend(record.value for record in reader.poll(0.1))
            return len(found) >= count

        eventually(lambda: has_read(1))
        kafka.admin().create_partitions([NewPartitions(topic, 2)])[topic].result(10)
        eventually(lambda: len(reader.ends(topic)) == 2)
        produce(kafka, topic, b"new", partition=1)
        eventually(lambda: has_read(2))

    assert found == [b"old", b"new"]


def values(records: Iterable[Found]) -> list[bytes | None]:
    return [record.value for record in records]


def test_offsets_count_on_the_log_that_they_were_noted_of_and_on_no_other(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("events", partitions=1)
    settings = KafkaSettings(bootstrap_servers=[kafka.bootstrap])
    for number in range(3):
        produce(kafka, topic, b"former%d" % number)
    with LogReader(settings) as reader:
        logs, starts = reader.logs([topic]), {topic: reader.ends(topic)}
    produce(kafka, topic, b"former3")
    with LogReader(settings) as reader:
        reader.begin(starts, logs)
        assert values(reader.to_the_end()) == [b"former3"]

    recreate(kafka, topic, 1)
    # As many as before, and then some.
    for number in range(5):
        produce(kafka, topic, b"new%d" % number)

    with LogReader(settings) as reader:
        reader.begin(starts, logs)
        assert values(reader.to_the_end()) == [b"new%d" % number for number in range(5)]
        reader.begin(starts, {})
        assert values(reader.to_the_end()) == [b"new3", b"new4"], "noted before ids were"


def test_a_topic_that_is_made_anew_while_it_is_read_is_read_from_its_first_record(
    kafka: KafkaLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_reader, "_WIDEN_EVERY_S", 0.0)
    topic, other = kafka.create("events", "results", partitions=1)
    for name in (topic, other):
        produce(kafka, name, b"old")
    found: list[bytes | None] = []
    with LogReader(KafkaSettings(bootstrap_servers=[kafka.bootstrap])) as reader:
        reader.begin({topic: (), other: ()}, {})

        def has_read(count: int) -> bool:
            reader.widen()
            found.extend(values(reader.poll(0.1)))
            return len(found) >= count

        eventually(lambda: has_read(2))
        # What Kafka says now is another one.
        reader._logs[topic] = "former"
        eventually(lambda: has_read(3))
        produce(kafka, other, b"new")
        eventually(lambda: has_read(4))

        assert found == [b"old", b"old", b"old", b"new"]
        reader.begin({topic: ()}, {})
        reader._logs[topic] = "former"
        with pytest.raises(LogUnavailable, match="made anew while"):
            list(reader.to_the_end())


def test_without_a_word_on_which_log_it_is_noted_offsets_are_not_believed(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("events", partitions=1)
    settings = KafkaSettings(bootstrap_servers=[kafka.bootstrap])
    with LogReader(settings) as reader, pytest.raises(LogUnavailable, match="does not say whether"):
        reader.begin({topic: (0,), "gone": (3,)}, {"gone": "former"})


def reading(topic: str, kafka: KafkaSettings, stop: threading.Event) -> Callable[[], object]:
    reader = LogReader(kafka, stop.is_set)
    reader.begin({topic: ()})
    return lambda: [list(reader.to_the_end()), reader.ends(topic)]


def writing(topic: str, kafka: KafkaSettings, stop: threading.Event) -> Callable[[], object]:
    producer = FencedProducer(kafka, ProducerSettings(), topic, stop.is_set)
    producer.take_over()
    producer.write([Record(topic, None, b"y", [])])
    return lambda: producer.write([Record(topic, None, b"z", [])])


def taking_over(topic: str, kafka: KafkaSettings, stop: threading.Event) -> Callable[[], object]:
    return FencedProducer(kafka, ProducerSettings(), topic, stop.is_set).take_over


@pytest.mark.parametrize("make", [reading, writing, taking_over])
def test_a_stop_does_not_wait_for_brokers_that_are_silent(
    kafka: KafkaLab, make: Callable[[str, KafkaSettings, threading.Event], Callable[[], object]]
) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("the broker is not ours to pause")
    (topic,) = kafka.create("events", partitions=1)
    produce(kafka, topic, b"x")
    stop = threading.Event()
    work = make(topic, KafkaSettings(bootstrap_servers=[kafka.bootstrap]), stop)
    timer = threading.Timer(0.5, stop.set)
    kafka.broker.pause()
    try:
        timer.start()
        began_s = time.monotonic()
        with pytest.raises(Stopped):
            work()
        lasted_s = time.monotonic() - began_s
    finally:
        kafka.broker.resume()
        timer.cancel()

    assert lasted_s < SOON_S
