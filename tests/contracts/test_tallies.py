"""Counting later gives what counting at once gives."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from contracts import metrics
from contracts.tallies import Tally, flush

AMOUNTS = (0.0, 0.001, 0.0011, 0.5, 0.5, 10.0, 10.1, 1e6)


def _metrics() -> tuple[CollectorRegistry, Counter, Histogram]:
    registry = CollectorRegistry()
    return (
        registry,
        Counter("x", "Things.", ("topic", "outcome"), registry=registry),
        Histogram("x_seconds", "Time.", ("topic",), buckets=(0.001, 0.5, 10.0), registry=registry),
    )


def _samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = (sample for metric in registry.collect() for sample in metric.samples)
    return {(one.name, tuple(one.labels.items())): one.value for one in found if not one.name.endswith("_created")}


def test_what_is_counted_together_is_what_is_counted_one_by_one() -> None:
    ours, counter, histogram = _metrics()
    tally = Tally(counter, histogram)
    theirs, by_one, each = _metrics()
    for amount in AMOUNTS:
        tally["t", "ok"].append(amount)
        by_one.labels("t", "ok").inc()
        each.labels("t").observe(amount)
    tally["t", "gone"].append(2.0)
    by_one.labels("t", "gone").inc()
    each.labels("t").observe(2.0)
    tally.flush()
    flush()

    assert _samples(ours) == pytest.approx(_samples(theirs))


def test_who_reads_the_registry_gets_what_was_noted() -> None:
    tally = Tally(metrics.DEDUP_DECISIONS)
    tally["tallied", "new"].append(1.0)

    labels = {"source": "tallied", "outcome": "new"}
    labels = dict(zip(metrics.DEDUP_DECISIONS._labelnames, labels.values(), strict=True))
    assert metrics.REGISTRY.get_sample_value("penstock_dedup_decisions_total", labels) == 1.0
    assert not tally["tallied", "new"]


def test_amounts_add_up_and_a_histogram_needs_no_counter() -> None:
    ours, counter, histogram = _metrics()
    sums, times = Tally(counter, adds=True), Tally(None, histogram)
    for amount in AMOUNTS:
        sums["t", "ok"].append(amount)
        times["t",].append(amount)
    flush()

    samples = _samples(ours)
    assert samples["x_total", (("topic", "t"), ("outcome", "ok"))] == pytest.approx(sum(AMOUNTS))
    assert samples["x_seconds_count", (("topic", "t"),)] == len(AMOUNTS)
