"""Metric names are a contract."""

import re

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from contracts import metrics

METRICS = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
# Bounded by the configuration or by slugs of ours; nothing from outside.
LABELS = {
    "endpoint", "status", "source", "outcome", "detail", "key_id", "version", "component", "topic", "partition",
    "provider", "model", "type", "basis", "route", "reason", "stage", "state", "check", "protocol", "door", "call",
    "lane", "limit",
}  # fmt: skip
NOT_BASE_UNITS = re.compile(r"(?<!timestamp)_(ms|milliseconds|minutes|hours|kb|mb|kilobytes|percent|cents)(_|$)")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric._name)
def test_a_metric_follows_the_naming_rules(metric: MetricWrapperBase) -> None:
    name = metric._name

    assert re.fullmatch(r"penstock_[a-z0-9]+(_[a-z0-9]+)*", name)
    assert not NOT_BASE_UNITS.search(name)
    assert metric._documentation.endswith(".")
    assert set(metric._labelnames) <= LABELS


@pytest.mark.parametrize(
    "metric", [m for m in METRICS if isinstance(m, Histogram)], ids=lambda metric: metric._name
)  # fmt: skip
def test_a_histogram_is_in_seconds_or_events_with_buckets_that_reach_far_enough(metric: Histogram) -> None:
    assert metric._name.endswith(("_seconds", "_batch_events"))
    assert metric._kwargs["buckets"][-1] >= 10


def test_gauges_are_not_called_totals() -> None:
    assert [m._name for m in METRICS if isinstance(m, Gauge) and m._name.endswith("_total")] == []


def test_counters_are_exposed_as_totals() -> None:
    counters = [m for m in METRICS if isinstance(m, Counter)]
    exposed = {sample.name for family in metrics.REGISTRY.collect() for sample in family.samples}

    assert len(counters) > 10
    assert {f"{m._name}_total" for m in counters if not m._labelnames} <= exposed


def test_names_are_unique() -> None:
    names = [m._name for m in METRICS]

    assert sorted(names) == sorted(set(names))
