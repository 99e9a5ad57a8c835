"""The producer that only one process at a time can have; tests/kafka has it on real brokers."""

import pytest

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
