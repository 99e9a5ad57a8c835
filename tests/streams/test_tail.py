"""The scan of the result topics: in which order it asks, and that a client which cannot be made ends nobody."""

from typing import Any, NoReturn, cast

import confluent_kafka
import pytest

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import admin
from streams.engine.item import TP
from streams.tail import TailReader


class Asked:
    """A consumer that notes whose ends are asked for; every partition is empty."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def list_topics(self, _topic: str, timeout: float) -> None:
        assert timeout > 0

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        self.topics.append(place.topic)
        return 0, 0


def test_the_end_of_a_source_is_asked_for_behind_those_of_the_results() -> None:
    """An answer for an event behind that end would be taken for one of an event that its broker has lost."""
    consumer = Asked()
    reader = TailReader(KafkaSettings(), "app", frozenset({"results", "retries"}))
    reader._scan(cast("Any", consumer), {TP("events", 0): (5, {"results": 0}), TP("events", 1): (5, None)})

    assert consumer.topics[-2:] == ["events", "events"]
    assert consumer.topics.count("events") == 2


def refused(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._CRIT_SYS_RESOURCE))


def test_a_consumer_that_cannot_be_made_is_a_log_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a container's limit of threads, say; the worker asks again later."""
    monkeypatch.setattr(confluent_kafka, "Consumer", refused)

    with pytest.raises(LogUnavailable, match="result topics cannot be read"):
        TailReader(KafkaSettings(), "app", frozenset({"results"})).ends([TP("events", 0)])


def test_where_nobody_can_be_asked_no_id_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "AdminClient", refused)

    assert TailReader(KafkaSettings(), "app", frozenset({"results"})).ids(["events"]) == {}
