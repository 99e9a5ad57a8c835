"""The scan of the result topics: a client which cannot be made ends nobody."""

from typing import Any, NoReturn

import confluent_kafka
import pytest

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import admin
from streams.engine.item import TP
from streams.tail import TailReader


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
