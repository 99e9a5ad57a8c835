"""Which call fails, and how long it takes."""

import pytest

from streams.fmstub.control import check_knobs
from streams.fmstub.plan import FaultPlan


def test_one_seed_gives_one_sequence() -> None:
    knobs = check_knobs({"error_rates": {"throttling": 0.3, "cut": 0.2}})

    runs = [[plan.choose(knobs, "m", "p") for _ in range(200)] for plan in (FaultPlan(7), FaultPlan(7))]

    assert runs[0] == runs[1]
    assert runs[0].count("throttling") == pytest.approx(60, abs=20)
    assert runs[0].count("cut") == pytest.approx(40, abs=20)


def test_the_model_id_wins_over_everything() -> None:
    knobs = check_knobs({"error_rates": {"cut": 1.0}})

    assert FaultPlan(0).choose(knobs, "error.throttling", "p") == "throttling"


def test_a_marker_fails_so_many_times_in_its_way() -> None:
    knobs = check_knobs({"fail_first": {"evt-1": {"times": 2, "kind": "throttling"}}})
    plan = FaultPlan(0)

    assert [plan.choose(knobs, "m", "about evt-1") for _ in range(3)] == ["throttling", "throttling", None]
    assert plan.choose(knobs, "m", "about evt-2") is None


def test_log_normal_latency_has_the_median_it_was_given() -> None:
    knobs = check_knobs({"latency_s": 2.0, "latency_sigma": 0.5})
    plan = FaultPlan(0)

    drawn = sorted(plan.latency_s(knobs) for _ in range(999))

    assert drawn[499] == pytest.approx(2.0, rel=0.1)
    assert drawn[-1] > 4.0
