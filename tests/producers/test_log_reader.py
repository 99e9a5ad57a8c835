"""A reader that goes on and on makes other clients when those that it has find no broker any more."""

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from contracts.settings import KafkaSettings
from producers import log_reader
from producers.log_reader import LogReader


class Client:
    """Finds its brokers as long as it is told to."""

    made: list["Client"]

    def __init__(self, config: dict[str, Any]) -> None:
        self.is_reading = "fetch.max.bytes" in config
        self.is_lost = self.is_closed = False
        self.at: list[tuple[str, int, int]] = []
        self.made.append(self)

    def list_topics(self, topic: str, timeout: float) -> Any:  # noqa: ARG002 - the client's
        """Tell of one partition."""
        if self.is_lost:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return SimpleNamespace(topics={topic: SimpleNamespace(error=None, partitions={0: None})})

    def get_watermark_offsets(self, *_: object) -> tuple[int, int]:
        """Tell of some records."""
        return 3, 9

    def assign(self, places: list[TopicPartition]) -> None:
        """Note them."""
        self.at = [(one.topic, one.partition, one.offset) for one in places]

    def consume(self, *_: object) -> list[Any]:
        """Say that it may not ask where its group is."""
        error = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
        return [SimpleNamespace(error=lambda: error, topic=str, partition=int, offset=int)]

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


def test_the_right_to_ask_for_a_group_that_is_never_joined_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "made", [], raising=False)
    monkeypatch.setattr(log_reader, "Consumer", Client)
    with LogReader(KafkaSettings(bootstrap_servers="127.0.0.1:1")) as reader:
        reader.begin({"t": [5]})

        assert reader.poll(0.1) == []


@pytest.mark.parametrize("lost", [True, False], ids=["reading", "asked"])
def test_clients_that_find_no_broker_for_a_minute_are_replaced(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setattr(Client, "made", [], raising=False)
    monkeypatch.setattr(log_reader, "Consumer", Client)
    monkeypatch.setattr(log_reader, "_WIDEN_EVERY_S", 0.0)
    with LogReader(KafkaSettings(bootstrap_servers="127.0.0.1:1")) as reader:
        reader.begin({"t": [5]})
        reader.widen()
        (client,) = (one for one in Client.made if one.is_reading is lost)
        client.is_lost = True
        reader.widen()
        assert len(Client.made) == 2

        reader.widen()
        reader.widen()

        assert [one.is_closed for one in Client.made] == [True, True, False, False]
        assert [one.at for one in Client.made if one.is_reading] == [[("t", 0, 5)]] * 2


@pytest.mark.parametrize(("starts", "shortened"), [([2], {"t"}), ([3], set()), ([], set())])
def test_a_topic_that_has_lost_records_behind_where_it_is_read_from_is_named(
    monkeypatch: pytest.MonkeyPatch, starts: list[int], shortened: set[str]
) -> None:
    """Its first record is at offset 3."""
    monkeypatch.setattr(Client, "made", [], raising=False)
    monkeypatch.setattr(log_reader, "Consumer", Client)
    with LogReader(KafkaSettings(bootstrap_servers="127.0.0.1:1")) as reader:
        reader.begin({"t": starts})

        assert reader.shortened == shortened


class Large:
    """A record of 1 MiB."""

    def __init__(self, offset: int) -> None:
        self.offset = lambda: offset

    def __len__(self) -> int:
        return 2**20

    def __getattr__(self, name: str) -> Any:
        answers = {"topic": "t", "partition": 0, "error": None, "headers": [], "timestamp": (1, 5)}
        return lambda: answers.get(name, b"v")


class Endless(Client):
    """A client that has as many large records as it is asked for."""

    given: ClassVar[list[Any]]

    def consume(self, *asked: Any) -> list[Any]:
        """Give them all."""
        count, timeout_s = asked
        assert timeout_s <= 0.1
        first = len(self.given)
        self.given.extend(Large(first + number) for number in range(count))
        return self.given[first:]


def test_a_poll_ends_at_so_many_bytes_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "made", [], raising=False)
    monkeypatch.setattr(Endless, "given", [], raising=False)
    monkeypatch.setattr(log_reader, "Consumer", Endless)
    with LogReader(KafkaSettings(bootstrap_servers="127.0.0.1:1")) as reader:
        reader.begin({"t": [0]})

        found = [reader.poll(0.1), reader.poll(0.1)]

    assert [len(some) for some in found] == [16, 16]
    assert [one.offset for some in found for one in some] == list(range(32))
