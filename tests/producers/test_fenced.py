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


class _Answering:
    """A client whose commit the brokers answer with an error without a name, and what follows with something else."""

    def __init__(self, later: KafkaException | None) -> None:
        self.later = later
        self.aborted = 0

    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: 0

    def commit_transaction(self, _timeout_s: float) -> None:
        raise KafkaException(KafkaError(KafkaError.UNKNOWN, "Unknown broker error", txn_requires_abort=True))

    def abort_transaction(self, _timeout_s: float) -> None:
        self.aborted += 1
        if self.later is not None:
            raise self.later


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (KafkaException(KafkaError(KafkaError._FENCED, "fenced", fatal=True)), fenced.TakenOver),
        (KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE, "committed")), LogUnavailable),
        (None, LogUnavailable),
    ],
    ids=["taken over", "who knows", "undone"],
)
def test_a_commit_that_fails_without_a_name_is_asked_after(
    later: KafkaException | None, expected: type[Exception]
) -> None:
    producer = fenced.FencedProducer(
        KafkaSettings(bootstrap_servers=(f"127.0.0.1:{free_port()}",)), ProducerSettings(), "work"
    )
    producer.close()
    producer._client = client = cast("Any", _Answering(later))

    with pytest.raises(expected):
        producer.write([Record("events", None, b"x", ())])
    assert client.aborted == 1
