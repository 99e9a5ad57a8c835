"""Reading the dead-letter topic while Kafka takes records away, against a client that is not there."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME

from contracts.settings import KafkaSettings
from gateways.cli import dlq_topic
from gateways.cli.dlq_topic import LetterTopic, Span


class Client:
    """A consumer that hands out records of partition 0 at given offsets, one a call."""

    def __init__(self, offsets: Iterable[int]) -> None:
        self.config: dict[str, Any] = {}
        self._offsets = iter(offsets)

    def __call__(self, config: dict[str, Any]) -> "Client":
        self.config = config
        return self

    def assign(self, *_: object) -> None:
        pass

    unassign = close = assign

    def consume(self, *_: object) -> list[Any]:
        plain = {"topic": "t", "partition": 0, "offset": next(self._offsets), "key": None, "value": b"v", "error": None}
        made: dict[str, Any] = {name: lambda value=value: value for name, value in plain.items()}
        return [SimpleNamespace(**made, timestamp=lambda: (TIMESTAMP_CREATE_TIME, 5), headers=list)]


def read(monkeypatch: pytest.MonkeyPatch, client: Client, span: Span) -> list[int]:
    monkeypatch.setattr(dlq_topic, "Consumer", client)
    return [record.offset for records in LetterTopic(KafkaSettings(), "t").read([span]) for record in records]


def test_letters_behind_those_that_retention_takes_away_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a question stands, or a slow --rate runs, the first offset that is wanted may go.

    librdkafka goes on at the partition's end then unless told otherwise, and the letters in between would be skipped.
    """
    client = Client([7, 8, 9])

    assert read(monkeypatch, client, Span(0, 5, 10)) == [7, 8, 9]
    assert client.config["auto.offset.reset"] == "earliest"


def test_no_letter_is_read_twice_when_the_client_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an unclean election cut the log off, it goes back to the first record there is; that was put back."""
    assert read(monkeypatch, Client([5, 6, 3, 4, 5, 6, 7]), Span(0, 5, 8)) == [5, 6, 7]
