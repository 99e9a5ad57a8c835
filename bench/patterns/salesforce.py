"""The Salesforce example under load: opportunities in bursts, the model away for minutes, the door back killed.

Every time is the org's own: from the creation of a record to the first write of its summary.
"""

import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.runs import RunFailedError
from tests.examples.salesforce_stack import Shown, Stack, topics_of
from tests.support import NotReachedError

_PROMISE_S = 300.0
_PARTITIONS = 12


@dataclass(frozen=True)
class Plan:
    """When what happens, in seconds from the first burst.

    Attributes:
        every_s: between two bursts.
        down_at_s, down_s: when the model goes away, and for how long.
        kills_at_s: when the door back is killed with SIGKILL and started again.
    """

    bursts: int = 10
    burst: int = 200
    every_s: float = 25.0
    down_at_s: float = 60.0
    down_s: float = 180.0
    kills_at_s: tuple[float, ...] = (28.0, 246.0)
    limit_s: float = 600.0


def salesforce(bootstrap: str, seed: int, plan: Plan | None = None) -> list[Figure]:
    """Measure what becomes of 2,000 opportunities.

    Raises:
        RunFailedError: something did not start, or opportunities have no summary long after their time.
    """
    plan = plan or Plan()
    prefix = f"bench-sf-{seed}-{int(time.time())}"
    model = ("--latency", "0.3", "--latency-sigma", "0.3", "--seed", str(seed))
    with tempfile.TemporaryDirectory() as folder, topics_of(bootstrap, prefix, _PARTITIONS):
        try:
            with Stack(bootstrap, prefix, Path(folder), model).running() as stack:
                stack.org.turn(latency_s=0.2, lock_rate=0.02, lost_answer_rate=0.02)
                _play(stack, plan)
                shown = stack.wait_until_all_show(plan.limit_s)
                calls = stack.org.state()["calls"]
        except NotReachedError as error:
            raise RunFailedError(str(error)[-2000:]) from error
    return _figures(list(shown.values()), calls, plan)


def _play(stack: Stack, plan: Plan) -> None:
    """Do everything at its time."""
    happenings = [(number * plan.every_s, "burst", number) for number in range(plan.bursts)]
    happenings += [(plan.down_at_s, "model_down", 0), (plan.down_at_s + plan.down_s, "model_up", 0)]
    happenings += [(at_s, "kill", 0) for at_s in plan.kills_at_s]
    begun_s, waiting = time.monotonic(), threading.Event()
    for at_s, what, number in sorted(happenings):
        waiting.wait(max(0.0, begun_s + at_s - time.monotonic()))
        if what == "burst":
            stack.org.create(plan.burst, first=number * plan.burst)
        elif what == "model_down":
            stack.model_down()
        elif what == "model_up":
            stack.model_up()
        else:
            stack.kill_egress()


def _figures(shown: list[Shown], calls: int, plan: Plan) -> list[Figure]:
    delays = sorted(one.delay_s for one in shown if one.delay_s is not None)
    in_time = sum(delay_s <= _PROMISE_S for delay_s in delays)
    total = plan.bursts * plan.burst
    twice = sum(one.writes > 1 for one in shown)
    repeats = sum(one.repeats for one in shown)
    return [
        Figure("opportunities", total, "", f"= {total}", len(shown) == total, is_strict=True),
        Figure("visible within 5 minutes", 100 * in_time / total, "%", "= 100", in_time == total, is_strict=True),
        Figure("written more than once", twice, "", "= 0", twice == 0, is_strict=True),
        # The control: without the mark on the record, each of these would be one more write.
        Figure("repeated deliveries, recognised", repeats, "", "> 0", repeats > 0),
        Figure("created to visible, median", round(statistics.median(delays), 1), "s"),
        Figure("created to visible, slowest", round(delays[-1], 1), "s", "<= 300", delays[-1] <= _PROMISE_S),
        Figure("model away", plan.down_s, "s"),
        Figure("door killed", len(plan.kills_at_s), "times"),
        Figure("calls of the org's API per opportunity", round(calls / total, 2), ""),
    ]
