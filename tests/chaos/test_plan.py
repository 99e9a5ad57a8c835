"""The plan depends on the seed alone; an action that finds nothing to do says so."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import backlog_of, draw_plan
from tests.chaos.fleet import MAX_WORKERS, Fleet, Nothing, disturb
from tests.chaos.injected import INJECTED
from tests.chaos.lab import SESSION_S
from tests.chaos.leg import drain_limit_s
from tests.chaos.plan import CLUSTER, STORM, Action, make_plan


def test_the_same_seed_gives_the_same_plan() -> None:
    assert make_plan(7, 60, STORM) == make_plan(7, 60, STORM)


def test_another_seed_gives_another_plan() -> None:
    assert make_plan(7, 60, STORM).actions != make_plan(8, 60, STORM).actions


def test_a_long_plan_has_every_kind_of_fault_and_keeps_to_its_time() -> None:
    for weights in (STORM, CLUSTER):
        plan = make_plan(1, 180, weights)
        assert {action.kind for action in plan.actions} == set(weights)
        assert all(action.at_s < plan.seconds for action in plan.actions)


def test_faults_that_are_apart_do_not_meet() -> None:
    actions = make_plan(1, 180, STORM, is_apart=True).actions
    # The longest is a frozen worker: a session, half of its time, and the next one to join.
    assert all(
        later.at_s - early.at_s >= SESSION_S + early.lasts_s / 2 + SESSION_S for early, later in pairwise(actions)
    )


@pytest.mark.parametrize("minutes", [2, 5, 30])
def test_a_backlog_may_take_a_slow_machine_long_but_not_until_its_deadline(minutes: int) -> None:
    plan = draw_plan("injected", 1, minutes * 60)
    backlog = backlog_of(plan)
    limit_s = drain_limit_s(backlog, plan.seconds)

    # A third of the ideal rate of 120 events a second.
    assert (backlog - 40 * plan.seconds) / 40 < limit_s
    # Of the route `usual`: a healthy event that expires fails the run.
    assert plan.seconds + limit_s < 900


def test_the_longest_plan_of_injected_errors_has_each_of_them_when_they_are_apart() -> None:
    plan = draw_plan("injected", 1, 1800, is_apart=True)

    assert {action.kind for action in plan.actions} == set(INJECTED)


@pytest.mark.parametrize(("kind", "workers"), [("join", MAX_WORKERS), ("kill", 0)])
def test_an_action_that_finds_nothing_to_do_says_so(kind: str, workers: int) -> None:
    there: Any = [None] * workers
    no_lab: Any = None
    assert isinstance(disturb(Fleet(no_lab, False, 1, Path(), there), Action(0, kind, 0, 0)), Nothing)
