"""Sides in turn: who fails is named and not run again."""

from collections.abc import Callable

import pytest

from bench.outcomes import Outcomes
from bench.processes import Sample
from bench.restarts import first_after
from bench.runs import Job, Run, RunFailedError
from bench.sides import LEAST, Side
from bench.steadiness import Found, in_turn, model_account, speed

OURS, PEER = Side("penstock", True, (), ""), Side("faust", False, (), "")
RUN = Run(Job(1, 1), Outcomes(1), [], {}, 0.0)


def fails_as(name: str, ran: list[str]) -> Callable[[Side], Run]:
    def measure(side: Side) -> Run:
        ran.append(side.name)
        if side.name == name:
            text = f"{name} did not finish within 150 s: 7 of 9 results:\nits last words"
            raise RunFailedError(text, 7)
        return RUN

    return measure


def test_sides_are_measured_in_turn() -> None:
    ran: list[str] = []
    found = in_turn((OURS, PEER), 2, fails_as("", ran))

    assert ran == ["penstock", "faust", "penstock", "faust"]
    assert [(side.name, len(runs)) for side, runs in found.measured()] == [("penstock", 2), ("faust", 2)]


def test_a_peer_that_fails_is_not_run_again_and_is_named_with_how_far_it_came() -> None:
    ran: list[str] = []
    found = in_turn((OURS, PEER), 3, fails_as("faust", ran))

    assert ran == ["penstock", "faust", "penstock", "penstock"]
    assert [side.name for side, _ in found.measured()] == ["penstock"]
    [figure] = found.failures(", N=1")
    assert figure.name == "not measured, N=1: faust did not finish within 150 s: 7 of 9 results"
    assert (figure.value, figure.unit, figure.holds) == (7, "results", None)


def test_a_failure_of_ours_is_the_end() -> None:
    with pytest.raises(RunFailedError):
        in_turn((OURS, PEER), 1, fails_as("penstock", []))


def test_the_first_result_after_a_start_is_found_in_any_order() -> None:
    assert first_after([5.0, 1.0, 3.5], 3.0) == 0.5
    assert first_after([1.0], 3.0) == float("inf")


def run_of(share: float, cpu_us: float) -> Run:
    count = 1000
    end_s = count / (share * 256 / Job(256, 1).plan.latency_s)
    outcomes = Outcomes(1, stamps=[number * end_s / count for number in range(count)])
    samples = [Sample(0.0, 0.0, 0), Sample(end_s, count * cpu_us / 1e6, 0)]
    return Run(Job(256, count), outcomes, samples, {}, end_s)


def test_the_goal_names_ordered_peers_only_where_some_ran() -> None:
    ordered = Side("bytewax", True, (), "")

    def goal(*others: Side) -> tuple[str, bool | None]:
        sides = (OURS, *others)
        runs = {side.name: [run_of(0.98 if side is OURS else 0.99, 300)] for side in sides}
        rate = speed(Found(sides, runs), 256)[0]
        return rate.goal, rate.holds

    assert goal(PEER, LEAST) == (">= 0.97", True)
    assert goal(PEER, LEAST, ordered) == (">= 0.97, above ordered peers", False)


def test_the_model_server_accounts_for_its_cpu_and_its_lateness_each_with_a_goal() -> None:
    runs = [Run(Job(1, 1), Outcomes(1), [], {"cpu_share": 0.2, "late_ms": {"99": late}}, 0.0) for late in (4.0, 12.5)]
    share, late = model_account(runs, "N=64")

    assert (share.name, share.value, share.holds) == ("model server, highest share of a core, N=64", 0.2, True)
    assert (late.name, late.value, late.holds) == ("model server, highest p99 of lateness, N=64", 12.5, False)


def test_the_least_is_no_peer_that_has_to_be_beaten_and_judges_the_goal_of_cpu() -> None:
    sides = (OURS, PEER, LEAST)
    runs = {"penstock": [run_of(0.98, 300)], "faust": [run_of(0.5, 500)], "least": [run_of(0.99, 150)]}
    figures = {figure.name: figure for figure in speed(Found(sides, runs), 256)}

    assert figures["rate / (N / latency), penstock, N=256"].holds
    assert figures["CPU per event over that of the least, N=256"].value == 2.0
    assert figures["goal of CPU per event over that of the least, N=256"].value == 0.8
