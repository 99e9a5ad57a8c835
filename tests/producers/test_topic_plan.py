"""Which differences of a topic matter."""

from dataclasses import replace
from typing import Any

import pytest

from contracts.settings import Settings
from producers.topic_plan import Drift, Found, blockers, drifts, wanted_topics

ROUTE = {
    "name": "r",
    "match": {"source": "*"},
    "prompt": {"user": "{{ data }}"},
    "model": "m",
    "output_topic": "mine.results",
}
DAY_MS = 86_400_000


def settings(**sections: Any) -> Settings:
    document = {
        "version": 1,
        "providers": {"p": {"kind": "embedded"}},
        "models": {"m": {"provider": "p", "model": "x"}},
    }
    return Settings.model_validate(document | {"routes": [ROUTE]} | sections)


def as_wanted(configured: Settings) -> dict[str, Found]:
    return {
        want.topic.name: Found(want.topic.name, want.partitions, 3, dict(want.config))
        for want in wanted_topics(configured)
    }


def changed(name: str, *, configured: Settings | None = None, **changes: Any) -> list[Drift]:
    configured = configured or settings()
    found = as_wanted(configured)
    config = changes.pop("config", {})
    have = found[name]
    found[name] = replace(have, config={**(have.config or {}), **config}, **changes)
    return drifts(wanted_topics(configured), found, configured)


def test_all_topics_are_wanted_the_routes_own_result_topic_included() -> None:
    names = [want.topic.name for want in wanted_topics(settings())]

    assert names == [
        "penstock.events.interactive.v1",
        "penstock.events.standard.v1",
        "penstock.events.bulk.v1",
        "penstock.results.v1",
        "mine.results",
        "penstock.deltas.v1",
        "penstock.dead-letters.v1",
        "penstock.retries.v1",
        "penstock.cancels.v1",
        "penstock.replies.v1",
        "penstock.batch-jobs.v1",
        "penstock.handovers.v1",
    ]


def test_topics_as_wanted_have_no_drift() -> None:
    configured = settings()

    assert drifts(wanted_topics(configured), as_wanted(configured), configured) == []


def test_partitions_without_a_leader_or_enough_replicas_are_named() -> None:
    in_sync = {0: 3, 1: 0, 2: 1, 3: 2, 10: 1}
    (leader, replicas) = changed(
        "penstock.results.v1", leaderless=(1,), in_sync=in_sync, config={"min.insync.replicas": "2"}
    )

    assert leader.text == "no broker leads partition 1: nothing of it is read or written until one does"
    assert replicas.text == ("too few replicas of partition 2, 10 are in sync, must be 2: nothing is written to it")
    # Kafka asks for no more replicas in sync than there are.
    alone = {"replication_factor": 1, "in_sync": {0: 1}, "config": {"min.insync.replicas": "2"}}
    configured = settings(kafka={"bootstrap_servers": ["k:9092"], "replication_factor": 1})
    assert changed("penstock.results.v1", configured=configured, **alone) == []


def test_a_missing_topic_is_drift() -> None:
    configured = settings()
    found = as_wanted(configured)
    del found["penstock.retries.v1"]

    assert drifts(wanted_topics(configured), found, configured) == [Drift("penstock.retries.v1", "missing")]


def test_fewer_partitions_are_drift_and_more_are_not() -> None:
    (drift,) = changed("penstock.dead-letters.v1", partitions=5)

    assert drift == Drift("penstock.dead-letters.v1", "5 partitions, configured are 12")
    assert changed("penstock.dead-letters.v1", partitions=50) == []


@pytest.mark.parametrize("name", ["penstock.results.v1", "mine.results", "penstock.deltas.v1"])
def test_a_result_topic_with_fewer_partitions_than_an_event_topic_is_drift(name: str) -> None:
    configured = settings()
    found = as_wanted(configured)
    events = "penstock.events.bulk.v1"
    found[events] = replace(found[events], partitions=24)

    texts = {drift.topic: drift.text for drift in drifts(wanted_topics(configured), found, configured)}

    assert set(texts) == {
        "penstock.results.v1",
        "mine.results",
        "penstock.retries.v1",
        "penstock.deltas.v1",
        "penstock.cancels.v1",
        "penstock.handovers.v1",
    }
    assert "12 partitions, but an event topic has 24" in texts[name]


def test_fewer_replicas_are_drift_only_when_a_number_is_configured() -> None:
    three = settings(kafka={"replication_factor": 3})

    assert changed("penstock.results.v1", replication_factor=1) == []
    (drift,) = changed("penstock.results.v1", configured=three, replication_factor=2)
    assert "2 replicas, configured are 3" in drift.text


@pytest.mark.parametrize(
    ("name", "value"), [("cleanup.policy", "compact"), ("message.timestamp.type", "LogAppendTime")]
)
def test_a_policy_that_breaks_an_assumption_is_drift(name: str, value: str) -> None:
    (drift,) = changed("penstock.events.standard.v1", config={name: value})

    assert drift.text.startswith(f"{name} is {value}, must be")


def test_shorter_retention_is_drift_longer_and_unlimited_are_not() -> None:
    name = "penstock.events.standard.v1"

    (drift,) = changed(name, config={"retention.ms": str(DAY_MS)})
    assert drift.text == f"retention.ms is {DAY_MS}, must be at least {7 * DAY_MS}"
    assert changed(name, config={"retention.ms": str(30 * DAY_MS)}) == []
    assert changed(name, config={"retention.ms": "-1"}) == []


def test_results_must_be_kept_as_long_as_the_gateway_promises() -> None:
    promising = settings(gateway={"results_retention_s": 20 * 86400.0})
    wanted = {want.topic.name: want.config["retention.ms"] for want in wanted_topics(promising)}

    assert wanted["penstock.results.v1"] == wanted["mine.results"] == str(20 * DAY_MS)
    assert wanted["penstock.events.bulk.v1"] == str(7 * DAY_MS)


def test_a_topic_that_refuses_our_largest_batch_is_drift() -> None:
    large = settings(producer={"max_record_bytes": 5_000_000})
    wanted = wanted_topics(large)[0].config["max.message.bytes"]

    assert int(wanted) > 5_000_000
    (drift,) = changed("penstock.results.v1", configured=large, config={"max.message.bytes": "1048588"})
    assert "max.message.bytes is 1048588" in drift.text
    assert changed("penstock.results.v1", config={"max.message.bytes": "1048588"}) == []


def test_a_configuration_that_cannot_be_read_is_drift() -> None:
    configured = settings()
    found = as_wanted(configured)
    found["mine.results"] = replace(found["mine.results"], config=None)

    (drift,) = drifts(wanted_topics(configured), found, configured)
    assert drift == Drift("mine.results", "its configuration cannot be read")


def test_on_the_embedded_broker_only_result_partitions_count() -> None:
    configured = settings(kafka={"embedded": True})
    found = {name: replace(have, partitions=4, config=None) for name, have in as_wanted(configured).items()}

    assert drifts(wanted_topics(configured), found, configured) == []
    found["mine.results"] = replace(found["mine.results"], partitions=2)
    (drift,) = drifts(wanted_topics(configured), found, configured)
    assert drift.topic == "mine.results"


def test_a_worker_cannot_start_without_its_topics_or_with_too_few_result_partitions() -> None:
    configured = settings()
    wanted, found = wanted_topics(configured), as_wanted(configured)
    assert blockers(wanted, found) == []

    del found["penstock.deltas.v1"], found["penstock.cancels.v1"], found["penstock.dead-letters.v1"]
    found["mine.results"] = replace(found["mine.results"], partitions=11)

    assert blockers(wanted, found) == [
        "topic penstock.dead-letters.v1 is missing",
        (
            "topic mine.results has 11 partitions, but an event topic has 12: "
            "a result or retry goes to the partition number of its event"
        ),
    ]


def test_a_worker_needs_the_hand_over_topic_only_when_it_hands_over() -> None:
    configured = settings()
    found = as_wanted(configured)
    del found["penstock.handovers.v1"], found["penstock.batch-jobs.v1"]

    assert blockers(wanted_topics(configured), found) == []
    assert blockers(wanted_topics(configured), found, hands_over=True) == ["topic penstock.handovers.v1 is missing"]


@pytest.mark.parametrize(
    ("jobs", "handovers", "said"),
    [
        ({}, {"segment.ms": str(7 * DAY_MS)}, ""),
        ({}, {"retention.ms": str(25 * DAY_MS), "segment.ms": str(7 * DAY_MS)}, f"at least {32 * DAY_MS}"),
        ({}, {"retention.ms": "-1"}, "must be -1"),
        ({"retention.ms": "-1"}, {"retention.ms": "-1"}, ""),
    ],
)
def test_a_jobs_topic_that_forgets_before_the_records_of_a_hand_over_go_is_drift(
    jobs: dict[str, str], handovers: dict[str, str], said: str
) -> None:
    configured = settings()
    found = as_wanted(configured)
    for name, config in (("penstock.batch-jobs.v1", jobs), ("penstock.handovers.v1", handovers)):
        found[name] = replace(found[name], config={**(found[name].config or {}), **config})

    texts = [f"{one.topic}: {one.text}" for one in drifts(wanted_topics(configured), found, configured)]

    assert [said in text and text.startswith("penstock.batch-jobs.v1: ") for text in texts] == ([True] if said else [])
