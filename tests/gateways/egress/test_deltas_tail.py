"""What is said of whether the deltas are followed."""

from typing import Any

import pytest
from confluent_kafka import KafkaException

from contracts.metrics import REGISTRY
from gateways.egress import deltas_tail
from gateways.egress.deltas_tail import DeltasTail
from tests.support import eventually

CONFIG = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0}


class _Consumer:
    """One with a topic of two partitions, until it breaks."""

    def __init__(self, _config: Any = None) -> None:
        self.said: list[float | None] = []

    def incremental_assign(self, _starts: Any) -> None:
        pass

    def unassign(self) -> None:
        self.said.append(followed())

    def poll(self, _timeout_s: float) -> None:
        self.said.append(followed())
        raise KafkaException

    def close(self) -> None:
        self.said.append(followed())


def followed() -> float | None:
    return REGISTRY.get_sample_value("penstock_stream_tail_following")


@pytest.fixture
def tail(monkeypatch: pytest.MonkeyPatch) -> DeltasTail:
    monkeypatch.setattr(deltas_tail, "partitions_of", lambda *_: (0, 1))
    monkeypatch.setattr(deltas_tail, "watermarks", lambda *_: (0, 5))
    return DeltasTail(CONFIG, "t", set(), lambda _: None, lambda: None)


def test_a_topic_that_was_made_anew_is_not_followed_until_its_partitions_are_found(tail: DeltasTail) -> None:
    consumer: Any = _Consumer()
    tail._refresh(consumer)
    assert (followed(), tail.is_following) == (1.0, True)
    tail._let_go(consumer)

    assert (consumer.said, followed(), tail.is_following) == ([0.0], 0.0, False)
    tail._refresh(consumer)
    assert (followed(), tail.is_following) == (1.0, True)


def test_nothing_is_followed_by_a_consumer_that_has_broken_or_is_closed(
    tail: DeltasTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[_Consumer] = []

    def make(config: Any) -> _Consumer:
        made.append(_Consumer(config))
        return made[-1]

    monkeypatch.setattr(deltas_tail, "Consumer", make)
    monkeypatch.setattr(tail._log_ids, "made_anew", frozenset)
    tail.start()
    eventually(lambda: made and len(made[0].said) == 2)
    tail.close()

    assert made[0].said == [1.0, 0.0]
    assert (followed(), tail.is_following) == (0.0, False)
