"""`bench restart`: from the start of a new process to its first result, after SIGTERM and after SIGKILL.

Ours has a static membership, as `worker.instance_id` gives it; what the peers have is theirs.
"""

import statistics
import time
from collections.abc import Callable, Sequence

from bench.figures import Figure
from bench.processes import Sampler
from bench.runs import Job, Run, RunFailedError, Stage, run
from bench.sides import Side
from bench.steadiness import in_turn, job_of, model_account, promises

_GOAL_S = 3.0
_SECONDS = 20
# (what is done, at which share of the results, how long it may take to end: none at all is SIGKILL)
_RESTARTS = (("SIGTERM", 0.25, 30.0), ("SIGKILL", 0.6, 0.0))


def restart(bootstrap: str, sides: Sequence[Side], runs: int, in_flight: int = 64) -> list[Figure]:
    """Restart every side twice under load.

    Raises:
        RunFailedError: ours failed.
    """
    job = job_of(in_flight, _SECONDS)
    found = in_turn(sides, runs, lambda side: _checked(run(bootstrap, side, job, _restarter(job))))
    figures: list[Figure] = []
    for side, mine in found.measured():
        for name, _, _ in _RESTARTS:
            waited = statistics.median(first_after(one.outcomes.stamps, one.notes[name]) for one in mine)
            goal = (f"<= {_GOAL_S:g}", waited <= _GOAL_S) if side.is_ours else ("", None)
            label = f"start to first result after {name}, {side.name}"
            figures.append(Figure(label, round(waited, 2), "s", *goal))
        if not side.is_ours:
            figures.append(Figure(f"lost, {side.name}", sum(one.lost for one in mine), "events"))
    account = model_account(found.all, "restarts")
    return [*figures, *found.failures(), *promises(found.ours, "restarts"), *account]


def first_after(stamps: Sequence[float], start: float) -> float:
    """Return the seconds from a moment to the first result after it; infinite when none came."""
    return min((stamp - start for stamp in stamps if stamp > start), default=float("inf"))


def _restarter(job: Job) -> Callable[[Stage], None]:
    due = list(_RESTARTS)

    def restart_when_due(stage: Stage) -> None:
        if not due or len(stage.outcomes.counts) < due[0][1] * job.events:
            return
        name, _, grace_s = due.pop(0)
        stage.worker.end(grace_s)
        stage.sampler.stop()
        stage.notes[name] = time.time()
        stage.worker.start()
        stage.sampler = Sampler(stage.worker.pid)

    return restart_when_due


def _checked(one: Run) -> Run:
    if len(one.notes) < len(_RESTARTS):
        msg = "the run ended before the second restart"
        raise RunFailedError(msg, len(one.outcomes.counts))
    return one
