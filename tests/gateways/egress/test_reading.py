"""Readers of a log that does not let them: what cannot be read is said, and is not called absent."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from concurrent import futures
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import OFFSET_BEGINNING, OFFSET_STORED, Consumer, KafkaError, TopicPartition, Uuid
from confluent_kafka.admin import AclOperation

from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, librdkafka_config
from contracts.settings import KafkaSettings
from gateways.egress import reading
from gateways.egress.fetch import Fetcher
from gateways.egress.outcomes import Place
from gateways.egress.reading import LogIds, partitions_of, reader_config, starts_of
from producers.mock_cluster import MockCluster
from tests.streams.test_recall import EVENTS, BrokenName, send
from tests.support import eventually

FORMER, NOW = str(Uuid(1, 2)), str(Uuid(3, 4))


class Told:
    """A consumer whose brokers say one thing about every topic."""

    def __init__(self, error: KafkaError | None) -> None:
        self._found = SimpleNamespace(error=error, partitions={0: None, 1: None})

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's
        return SimpleNamespace(topics={topic: self._found})


def test_a_topic_that_is_not_there_yet_has_no_partitions() -> None:
    assert partitions_of(Told(None), "t", 1.0) == (0, 1)  # type: ignore[arg-type]
    assert partitions_of(Told(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)), "t", 1.0) == ()  # type: ignore[arg-type]


def test_a_topic_that_may_not_be_read_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(LogUnavailable, match="t: Broker: Topic authorization failed"):
        partitions_of(Told(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)), "t", 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metadata", "is_believed"),
    [
        (NOW, True),
        (FORMER, False),
        # Base64 has these, too.
        ("M3n8fkGeSaSSYX+8s6MkHQ", False),
        ("C17pi2/XT3yIFnk5QSThZA", False),
        (None, True),
        ("", True),
        ("reset by an operator", True),
        (FORMER + "\x7fx", True),
    ],
)
def test_only_an_id_tells_that_a_commit_is_of_a_former_log(metadata: str | None, is_believed: bool) -> None:
    """What else is there was written by an operator's tool, and its offset is wanted."""
    commit = TopicPartition("t", 0, 7) if metadata is None else TopicPartition("t", 0, 7, metadata)
    commits = [commit, TopicPartition("t", 1, 7, NOW)]
    consumer = cast("Consumer", SimpleNamespace(committed=lambda _places, timeout: commits))  # noqa: ARG005

    found = starts_of(consumer, [TopicPartition("t", 0), TopicPartition("t", 1)], {"t": NOW}, 1.0)

    assert [one.offset for one in found] == ([] if is_believed else [OFFSET_BEGINNING, OFFSET_STORED])


def test_a_commit_whose_metadata_cannot_be_read_is_believed() -> None:
    """Of what other tools wrote, confluent-kafka 2.16 returns what lies behind it in memory, too."""

    class Garbled:
        topic, partition, offset = "t", 0, 7

        @property
        def metadata(self) -> str:
            return b"reset\xad".decode()

    consumer = cast("Consumer", SimpleNamespace(committed=lambda _places, timeout: [Garbled()]))  # noqa: ARG005

    assert starts_of(consumer, [TopicPartition("t", 0)], {"t": NOW}, 1.0) == []


def described(
    uuid: Uuid | None, operations: Sequence[AclOperation] | None = (AclOperation.READ,)
) -> "futures.Future[Any]":
    """Return an answer to the question for a topic; None = there is none yet."""
    answer: futures.Future[Any] = futures.Future()
    if uuid is not None:
        answer.set_result(SimpleNamespace(topic_id=uuid, authorized_operations=operations))
    return answer


def test_of_a_topic_that_is_not_told_of_the_earlier_id_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_START_LIMIT_S", 0.0)
    answers = [
        {"a": described(Uuid(1, 2)), "b": described(Uuid(1, 2))},
        {"a": described(Uuid(3, 4)), "b": described(None)},
    ]
    watch = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a", "b"])
    monkeypatch.setattr(watch, "_ask", lambda *_: answers.pop(0))

    watch.start()
    assert watch.ids == {"a": FORMER, "b": FORMER}
    watch.start()
    assert watch.ids == {"a": NOW, "b": FORMER}


def test_a_start_that_got_no_answer_does_not_keep_the_next_one_from_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow cluster tells later; a door without ids would go by the topic's name until it is started anew."""
    limits_s: list[float] = []
    now_s = [0.0]
    answers = [{"a": described(uuid)} for uuid in (None, Uuid(1, 2), Uuid(3, 4), Uuid(3, 4))]
    watch = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a"], clock=lambda: now_s[0])
    monkeypatch.setattr(watch, "_ask", lambda *_: answers.pop(0))
    monkeypatch.setattr(watch, "_find_broker", lambda: None)
    monkeypatch.setattr(futures, "wait", lambda _asked, limit_s: limits_s.append(limit_s))

    watch.start()
    now_s[0] += 60
    watch.made_anew()
    assert watch.made_anew() == frozenset()
    assert watch.ids == {"a": FORMER}
    now_s[0] += 60
    watch.made_anew()
    assert watch.made_anew() == {"a"}
    watch.start()

    assert limits_s[1] == limits_s[0] > 0
    assert watch.ids == {"a": NOW}


def test_without_a_broker_nothing_is_said_of_the_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_START_LIMIT_S", 0.1)
    monkeypatch.setattr(reading, "_ANSWER_LIMIT_S", 0.1)

    with pytest.raises(LogUnavailable):
        LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a"]).start()


@pytest.mark.embedded
def test_a_broker_that_describes_no_topics_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_START_LIMIT_S", 0.2)
    with MockCluster() as cluster:
        watch = LogIds({"bootstrap.servers": cluster.bootstrap}, ["a"])
        watch.start()
        # Longer than any test may take: it is not waited for again.
        monkeypatch.setattr(reading, "_START_LIMIT_S", 1000.0)
        watch.start()

    assert watch.ids == {}


def test_a_topic_that_was_made_anew_is_told_once_and_a_later_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        {"a": described(Uuid(1, 2)), "b": described(Uuid(1, 2))},
        {
            "a": described(Uuid(3, 4)),
            "b": described(Uuid(1, 2)),
            "c": described(Uuid(5, 6)),
            "d": described(Uuid(0, 0)),
        },
        {"a": described(Uuid(3, 4))},
    ]
    now_s = [0.0]
    ids = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a", "b", "c", "d"], clock=lambda: now_s[0])
    monkeypatch.setattr(ids, "_ask", lambda *_: answers.pop(0))
    told = []
    for _ in range(3):
        told += [ids.made_anew(), ids.made_anew()]
        now_s[0] += reading._LOOK_EVERY_S

    assert told == [frozenset(), frozenset(), frozenset(), {"a"}, frozenset(), frozenset()]
    assert ids.ids == {"a": NOW, "b": FORMER, "c": str(Uuid(5, 6))}


def test_what_an_earlier_process_knew_is_compared_with_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a"], {"a": FORMER})
    monkeypatch.setattr(ids, "_ask", lambda *_: {"a": described(Uuid(3, 4))})
    ids.made_anew()

    assert ids.made_anew() == {"a"}


def test_brokers_that_know_no_ids_say_nothing_of_this_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster under upgrade some do not."""
    ids = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ())
    monkeypatch.setattr(ids, "_ask", lambda *_: {"a": described(Uuid(0, 0)), "b": described(Uuid(3, 4))})

    assert ids.now(["a", "b"]) == {"b": NOW}


def test_every_reader_of_the_same_brokers_asks_with_one_client() -> None:
    """Each has threads, and a connection to every broker."""
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    readers = [LogIds(reader_config(kafka, name), ["a"]) for name in ("tail", "index")]
    door, other = (LogIds({**librdkafka_config(kafka), **more}, ["a"]) for more in ({}, {"sasl.username": "x"}))

    assert len({one._client for one in (*readers, door)}) == 1
    assert other._client is not door._client
    client, gone = weakref.ref(other._client), [other]
    del other
    gone.clear()
    gc.collect()
    assert client() is None, "it goes with the last of them"


def test_what_was_asked_before_a_refusal_does_not_say_that_topics_may_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    ids = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a"], clock=lambda: now_s[0])
    monkeypatch.setattr(ids, "_ask", lambda *_: {"a": described(Uuid(1, 2))})
    told = []
    for is_refused in (False, True, False):
        ids.made_anew()
        if is_refused:
            ids.forget()
        ids.made_anew()
        told.append(ids.may_read)
        now_s[0] += 60

    assert told == [True, False, True]


@pytest.mark.parametrize(
    "answers",
    [
        {"a": [AclOperation.READ], "b": [AclOperation.DESCRIBE]},
        {"a": [AclOperation.READ], "b": None},
        # Of `b` nothing was heard.
        {"a": [AclOperation.READ]},
    ],
)
def test_topics_may_be_read_when_all_are_told_of_and_may_be(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[AclOperation] | None]
) -> None:
    ids = LogIds({"bootstrap.servers": "127.0.0.1:1"}, ["a", "b"])
    asked = {name: described(Uuid(1, 2), operations) for name, operations in answers.items()}
    monkeypatch.setattr(ids, "_ask", lambda *_: asked)
    ids.made_anew()
    ids.made_anew()

    assert (ids.may_read, ids.ids.keys()) == (False, answers.keys())


def test_what_a_client_says_of_brokers_that_are_away_does_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps one error for every attempt to connect, and an outage may last for a day."""
    monkeypatch.setattr(reading, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(reading, "_ANSWER_LIMIT_S", 0.1)
    taken: list[KafkaError] = []
    asking = LogIds({"bootstrap.servers": "127.0.0.1:1", "error_cb": taken.append}, ["a"])

    def are_taken() -> bool:
        asking.made_anew()
        return bool(taken)

    eventually(are_taken, 20)


def test_without_an_answer_no_id_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_NOW_LIMIT_S", 0.1)

    with pytest.raises(LogUnavailable):
        LogIds({"bootstrap.servers": "127.0.0.1:1"}, ()).now(["a"])


def test_a_record_that_does_not_come_in_time_is_not_taken_for_gone() -> None:
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    fetcher = Fetcher(reader_config(kafka, "test"))
    try:
        with pytest.raises(LogUnavailable):
            fetcher.fetch(Place("t", 0, 7), 0.3)
    finally:
        fetcher.close()


@pytest.mark.embedded
def test_such_a_record_does_not_end_the_process_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiokafka.producer.producer.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    monkeypatch.setattr(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    with MockCluster() as cluster:
        # After some calls the interpreter takes a shorter way to the client's own function.
        asyncio.run(send(cluster.bootstrap, *["a"] * 40, BrokenName("x"), "b"))
        consumer = Consumer(reader_config(KafkaSettings(bootstrap_servers=(cluster.bootstrap,)), "test"))
        try:
            consumer.assign([TopicPartition(EVENTS, 0, 0)])
            found: list[list[tuple[str, bytes | None]]] = []
            while len(found) < 42:
                found += [headers_of(one) for one in consumer.consume(50, 5.0) if one.error() is None]
        finally:
            consumer.close()

    assert found == [[("a", b"1")]] * 40 + [[], [("b", b"1")]]
