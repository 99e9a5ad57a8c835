"""`bench stragglers`, `faults` and `kill`: what slow, failing and killed parts cost; loss and order decide."""

import statistics
import time
from collections.abc import Callable, Sequence

from bench.figures import Figure
from bench.ideal import in_turn, makespan
from bench.model_plan import Plan
from bench.outcomes import longest_gap
from bench.processes import Sampler
from bench.runs import Job, Run, RunFailedError, Stage, run
from bench.sides import Side
from bench.steadiness import alternate, job_of, model_account, promises, total

_STRAGGLER_GOAL = 1.05
_HEALTHY_GOAL = 0.95
_STALL_GOAL_S = 5.0
_KILL_AT = 0.45


def stragglers(bootstrap: str, sides: Sequence[Side], runs: int) -> list[Figure]:
    """1 % of the events take 25 times as long: total time over the ideal schedule of the same latencies."""
    job = Job(256, 6000, 500, Plan(straggler_share=0.01))
    latencies = [job.plan.answer(f"e{number}", 1)[1] for number in range(job.events)]
    ideal_s = makespan(in_turn(latencies, job.keys), job.in_flight)
    found = alternate(bootstrap, sides, job, runs)
    figures = [Figure("ideal schedule under key order", round(ideal_s, 2), "s")]
    for number, side in enumerate(sides):
        ratio = statistics.median(one.total_s for one in found[side.name]) / ideal_s
        goal = (f"<= {_STRAGGLER_GOAL}", ratio <= _STRAGGLER_GOAL) if number == 0 else ("", None)
        figures.append(Figure(f"total / ideal, {side.name}", round(ratio, 3), "ratio", *goal))
        if number:
            figures.append(Figure(f"out of key order, {side.name}", total(found[side.name], "disorder"), "events"))
    return [*figures, *promises(found[sides[0].name], "stragglers"), model_account(_all(found))]


def faults(bootstrap: str, sides: Sequence[Side], runs: int) -> list[Figure]:
    """Rate of healthy results with failing and poison events, over the rate without; refusals take no time."""
    plans = {
        "none": Plan(),
        "5 % fail once (503)": Plan(unavailable_share=0.05),
        "20 % fail once (503)": Plan(unavailable_share=0.2),
        "20 % poison (400)": Plan(poison_share=0.2),
    }
    found = {name: alternate(bootstrap, sides, _with_plan(job_of(256), plan), runs) for name, plan in plans.items()}
    figures: list[Figure] = []
    for number, side in enumerate(sides):
        base = _healthy_rate(found["none"][side.name])
        for name in list(plans)[1:]:
            ratio = _healthy_rate(found[name][side.name]) / base
            goal = (f">= {_HEALTHY_GOAL}", ratio >= _HEALTHY_GOAL) if number == 0 else ("", None)
            figures.append(Figure(f"healthy rate / without, {name}, {side.name}", round(ratio, 3), "ratio", *goal))
            lost = sum(one.lost for one in found[name][side.name])
            figures += [Figure(f"lost, {name}, {side.name}", lost, "events")] if number else []
    for name in plans:
        figures += promises(found[name][sides[0].name], name)
    return figures


def kill(bootstrap: str, sides: Sequence[Side], runs: int, in_flight: int = 64) -> list[Figure]:
    """One SIGKILL at 45 % of the results, restarted at once: what is lost, repeated and paid again."""
    job = job_of(in_flight, seconds=20)
    found: dict[str, list[Run]] = {side.name: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            found[side.name].append(_with_open(run(bootstrap, side, job, _killer(job))))
    figures: list[Figure] = []
    for number, side in enumerate(sides):
        mine, strict = found[side.name], number == 0
        extra = max(one.model["extra_calls"] - one.kill["open"] for one in mine)
        stall = statistics.median(longest_gap(one.outcomes.stamps) for one in mine) - 6.0
        figures += [
            Figure(
                f"extra model calls, less those whose answer was not on the topic at the kill, worst, {side.name}",
                extra,
                "calls",
                "<= 0" if strict else "",
                extra <= 0 if strict else None,
                is_strict=strict,
            ),
            Figure(
                f"longest stall beyond the session timeout, {side.name}",
                round(stall, 2),
                "s",
                f"<= {_STALL_GOAL_S:g}" if strict else "",
                stall <= _STALL_GOAL_S if strict else None,
            ),
        ]
        if not strict:
            figures += [
                Figure(f"lost, {side.name}", sum(one.lost for one in mine), "events"),
                Figure(f"duplicate results, {side.name}", total(mine, "duplicates"), "events"),
                Figure(f"out of key order, {side.name}", total(mine, "disorder"), "events"),
            ]
    return [*figures, *promises(found[sides[0].name], "SIGKILL")]


def _with_open(one: Run) -> Run:
    """Add how many events had been called for whose answer was not on the result topic when the worker died.

    Nobody can know those answers: they are the floor of what is paid again.

    Raises:
        RunFailedError: the run ended before the kill.
    """
    if "at" not in one.kill:
        msg = "the run ended before the kill"
        raise RunFailedError(msg)
    on_topic = sum(stamp <= one.kill["at"] for stamp in one.outcomes.stamps)
    one.kill["open"] = one.kill["called"] - on_topic
    return one


def _killer(job: Job) -> Callable[[Stage], None]:
    def kill_once(stage: Stage) -> None:
        if stage.kill or len(stage.outcomes.counts) < _KILL_AT * job.events:
            return
        stage.worker.end(0.0)
        stage.kill.update(at=time.time(), called=stage.model_stats()["events"])
        stage.sampler.stop()
        stage.worker.start()
        stage.sampler = Sampler(stage.worker.pid)

    return kill_once


def _healthy_rate(runs: Sequence[Run]) -> float:
    return statistics.median(one.healthy_rate for one in runs)


def _with_plan(job: Job, plan: Plan) -> Job:
    return Job(job.in_flight, job.events, job.keys, plan)


def _all(found: dict[str, list[Run]]) -> list[Run]:
    return [one for runs in found.values() for one in runs]
