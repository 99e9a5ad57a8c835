"""Readers of a log that does not let them: what cannot be read is said, and is not called absent."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Consumer, KafkaError, TopicPartition

from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of
from contracts.settings import KafkaSettings
from gateways.egress.fetch import Fetcher
from gateways.egress.index import Place
from gateways.egress.reading import partitions_of, reader_config
from producers.mock_cluster import MockCluster
from tests.streams.test_recall import EVENTS, BrokenName, send


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
