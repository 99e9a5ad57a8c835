"""The producer that only one process at a time can have; tests/kafka has it on real brokers."""

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException

from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from producers import fenced
from tests.support import free_port


def test_brokers_that_do_not_answer_are_told_from_those_that_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fenced, "_LIMIT_S", 0.3)
    monkeypatch.setattr(fenced, "_STEP_S", 0.1)
    kafka = KafkaSettings(bootstrap_servers=(address := f"127.0.0.1:{free_port()}",))
    producer = fenced.FencedProducer(kafka, ProducerSettings(), "work", lambda: False)
    with pytest.raises(LogUnavailable, match=f"^Kafka at {address} does not answer: "):
        producer.take_over()


def test_a_broken_client_without_transactions_is_not_asked_in_vain_what_was_wrong() -> None:
    producer = fenced.FencedProducer(
        KafkaSettings(embedded=True, bootstrap_servers=(f"127.0.0.1:{free_port()}",)), ProducerSettings(), "work"
    )
    real = producer._client

    class Broken:
        """A client that had a fatal error which nobody has heard of yet."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def produce(self, *_: Any, **__: Any) -> None:
            raise KafkaException(KafkaError(KafkaError._FATAL, "Local: Fatal error"))

    producer._client = cast("Any", Broken())
    with pytest.raises(LogUnavailable, match="Fatal error"):
        producer.write([Record("events", None, b"x", ())])
    producer.close()
