"""Errors that the group and the log give to a worker: nothing is lost, repeated or overtaken.

Blocking: about 30 s; most of it is joining again, which takes most of a session on the mock cluster.
"""

from pathlib import Path

import pytest

from tests.chaos.injected import BACKLOG, INJECTED, injected_leg
from tests.chaos.plan import Action, Plan
from tests.chaos.report import offenders

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]

PAUSE_S = 0.5


@pytest.mark.long
def test_no_injected_error_makes_a_worker_lose_repeat_or_reorder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = tuple(Action(number * PAUSE_S, kind, 0.0, 0.0) for number, kind in enumerate(INJECTED))
    plan = Plan(4, actions[-1].at_s + PAUSE_S, is_static=False, actions=actions)
    with injected_leg(plan, tmp_path, print) as leg:
        leg.storm(BACKLOG)
        verdict = leg.close_books()

    told = "\n".join([capsys.readouterr().out, *map(str, offenders(verdict).items())])
    balance = verdict.balance
    assert verdict.accepted == BACKLOG, told
    assert not any(balance.wrong()), told
    assert verdict.problems == [], told
    assert verdict.extra <= verdict.bound, told
    # Also not by a topic that may not be written to: its outcomes wait, with the calls that were paid for.
    assert verdict.crashes == [], told
