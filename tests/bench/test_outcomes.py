"""Figures out of results and samples."""

import pytest

from bench.outcomes import Outcomes, cpu_at, longest_gap, steady
from bench.processes import Sample

SAMPLES = [Sample(at=float(second), cpu_s=second * 0.5, rss_bytes=2**20 * 64) for second in range(11)]


def test_a_result_before_its_predecessor_of_the_same_key_is_disorder() -> None:
    outcomes = Outcomes(keys=2)
    for number in (0, 4, 2, 1, 3):
        outcomes.note(number, 0.0)
    assert outcomes.disorder == 1


def test_a_repeated_result_is_a_duplicate_and_no_disorder() -> None:
    outcomes = Outcomes(keys=2)
    for number in (0, 2, 0):
        outcomes.note(number, 0.0)
    assert (outcomes.duplicates, outcomes.disorder) == (1, 0)


def test_rate_and_cpu_are_those_of_the_steady_part() -> None:
    stamps = [0.0] * 10 + [1.0 + 0.01 * number for number in range(180)] + [9.0] * 10
    found = steady(stamps, SAMPLES)
    assert found.rate == pytest.approx(100, rel=0.01)
    assert found.cpu_us == pytest.approx(5000, rel=0.01)
    assert found.rss_mb == 64


def test_cpu_between_two_samples_is_in_proportion() -> None:
    assert cpu_at(SAMPLES, 2.5) == pytest.approx(1.25)
    assert cpu_at(SAMPLES, 99.0) == 5.0


def test_the_longest_time_without_a_result_is_found_in_any_order() -> None:
    assert longest_gap([5.0, 1.0, 2.0]) == 3.0
    assert longest_gap([1.0]) == 0.0
