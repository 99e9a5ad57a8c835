"""What is made of the cluster's metadata."""

from types import SimpleNamespace

import pytest

from contracts.settings import KafkaSettings
from producers import admin
from producers.admin import TopicAdmin


def partition(leader: int, replicas: int, in_sync: int) -> SimpleNamespace:
    return SimpleNamespace(leader=leader, replicas=list(range(replicas)), isrs=list(range(in_sync)))


def test_a_topic_is_found_with_its_partitions_that_nobody_leads_and_their_replicas_in_sync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    partitions = {0: partition(2, 3, 3), 1: partition(-1, 3, 0), 2: partition(1, 3, 1)}
    topics = {"mine": SimpleNamespace(partitions=partitions, error=None)}
    client = SimpleNamespace(list_topics=lambda timeout: SimpleNamespace(topics=topics))  # noqa: ARG005 - the name is confluent-kafka's
    monkeypatch.setattr(admin, "made", lambda _make: client)

    found = TopicAdmin(KafkaSettings(bootstrap_servers="k:9092")).find(["mine"], with_config=False)["mine"]

    assert (found.partitions, found.replication_factor) == (3, 3)
    assert (found.leaderless, found.in_sync) == ((1,), {0: 3, 1: 0, 2: 1})


def test_a_topic_whose_settings_are_not_told_in_time_is_found_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """`batch serve` and `hand-over` ask at their start, and would end."""

    def result(_limit_s: float) -> None:
        raise TimeoutError

    topics = {"mine": SimpleNamespace(partitions={0: partition(1, 3, 3)}, error=None)}
    client = SimpleNamespace(
        list_topics=lambda timeout: SimpleNamespace(topics=topics),  # noqa: ARG005 - the name is confluent-kafka's
        describe_configs=lambda resources, **_: {resources[0]: SimpleNamespace(result=result)},
    )
    monkeypatch.setattr(admin, "made", lambda _make: client)

    assert TopicAdmin(KafkaSettings(bootstrap_servers="k:9092")).find(["mine"])["mine"].config is None
