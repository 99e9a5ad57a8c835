"""The table of topics."""

import re

import pytest

from contracts.topics import DELIVERY_TIERS, LANES, Topics, is_event_topic


def test_names_follow_the_rule() -> None:
    for topic in Topics("acme").table():
        assert re.fullmatch(r"acme\.(events\.[a-z]+|[a-z-]+)\.v1", topic.name)


def test_the_table_is_complete() -> None:
    assert [topic.name for topic in Topics().table()] == [
        "penstock.events.interactive.v1",
        "penstock.events.standard.v1",
        "penstock.events.bulk.v1",
        "penstock.results.v1",
        "penstock.deltas.v1",
        "penstock.dead-letters.v1",
        "penstock.retries.v1",
        "penstock.cancels.v1",
        "penstock.replies.v1",
        "penstock.batch-jobs.v1",
        "penstock.handovers.v1",
    ]


@pytest.mark.parametrize("prefix", ["penstock", "events", "acme.prod", "acme.events"])
def test_event_topics_are_told_by_their_names_whatever_the_prefix(prefix: str) -> None:
    table = Topics(prefix).table(has_doors=True)

    assert [is_event_topic(topic.name) for topic in table] == [topic.kind == "events" for topic in table]


def test_event_topics_know_their_lane() -> None:
    assert [topic.lane for topic in Topics().table() if topic.kind == "events"] == list(LANES)


def test_result_topics_of_routes_are_added_once() -> None:
    topics = Topics()
    names = [t.name for t in topics.table(frozenset({"own", topics.results})) if t.kind == "results"]

    assert names == ["penstock.results.v1", "own"]
    assert topics.result_topics([None, "own", ""]) == {"penstock.results.v1", "own"}


def test_topics_for_deliveries_are_there_only_with_doors_and_outlive_their_wait() -> None:
    with_doors = {topic.name: topic for topic in Topics().table(has_doors=True)}

    assert with_doors.keys() - {topic.name for topic in Topics().table()} == {
        *(f"penstock.deliveries.{tier}.v1" for tier in DELIVERY_TIERS),
        "penstock.undelivered.v1",
        "penstock.endpoints.v1",
    }
    assert list(DELIVERY_TIERS.values()) == sorted(DELIVERY_TIERS.values())
    week_ms = 7 * 86_400_000
    assert with_doors["penstock.deliveries.24h.v1"].retention_ms == week_ms + 86_400_000


def test_timestamps_are_the_producers_because_pay_once_compares_them() -> None:
    assert {t.config()["message.timestamp.type"] for t in Topics().table()} == {"CreateTime"}


def test_results_live_as_long_as_the_events_that_they_answer() -> None:
    """A redelivered event whose result is gone would be paid for again."""
    table = Topics().table()
    longest_ms = max(t.retention_ms for t in table if t.kind == "events")

    assert min(t.retention_ms for t in table if t.kind == "results") >= longest_ms


def test_states_of_endpoints_are_kept_for_ever_and_nothing_else_is() -> None:
    kept = [t.name for t in Topics().table(has_doors=True) if t.config()["cleanup.policy"] == "compact"]

    assert kept == ["penstock.endpoints.v1"]
