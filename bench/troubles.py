"""`bench stragglers`, `faults` and `kill`: what slow, failing and killed parts cost; loss and order decide."""

import statistics
import time
from collections.abc import Callable, Sequence

from bench.figures import Figure
from bench.ideal import in_turn as keys_in_turn
from bench.ideal import makespan
from bench.model_plan import Plan
from bench.outcomes import longest_gap
from bench.processes import Sampler
from bench.runs import Job, Run, RunFailedError, Stage, run
from bench.sides import SESSION_S, Side
from bench.steadiness import Found, alternate, in_turn, job_of, model_account, promises, total

_STRAGGLER_GOAL = 1.05
_HEALTHY_GOAL = 0.95
_STALL_GOAL_S = 5.0
_KILL_AT = 0.45


def stragglers(bootstrap: str, sides: Sequence[Side], runs: int) -> list[Figure]:
    """1 % of the events take 25 times as long: total time over the ideal schedule of the same latencies."""
    job = Job(256, 6000, 500, Plan(straggler_share=0.01))
    latencies = [job.plan.answer(f"e{number}", 1)[1] for number in range(job.events)]
    ideal_s = makespan(keys_in_turn(latencies, job.keys), job.in_flight)
    found = alternate(bootstrap, sides, job, runs)
    figures = [Figure("ideal schedule under key order", round(ideal_s, 2), "s")]
    for side, mine in found.measured():
        ratio = statistics.median(one.total_s for one in mine) / ideal_s
        goal = (f"<= {_STRAGGLER_GOAL}", ratio <= _STRAGGLER_GOAL) if side.is_ours else ("", None)
        figures.append(Figure(f"total / ideal, {side.name}", round(ratio, 3), "ratio", *goal))
        if not side.is_ours:
            figures.append(Figure(f"out of key order, {side.name}", total(mine, "disorder"), "events"))
    return [*figures, *found.failures(), *promises(found.ours, "stragglers"), *model_account(found.all, "stragglers")]


def faults(bootstrap: str, sides: Sequence[Side], runs: int) -> list[Figure]:
    """Rate of healthy results with failing and poison events, over the rate without; refusals take no time."""
    plans = {
        "none": Plan(),
        "5 % fail once (503)": Plan(unavailable_share=0.05),
        "20 % fail once (503)": Plan(unavailable_share=0.2),
        "20 % poison (400)": Plan(poison_share=0.2),
    }
    found: dict[str, Found] = {}
    for name, plan in plans.items():
        # Who cannot do the job without faults is not asked to do it with them.
        able = [side for side in sides if not found or side.name not in found["none"].failed]
        found[name] = alternate(bootstrap, able, _with_plan(job_of(256), plan), runs)
    figures = found["none"].failures()
    for side, healthy in found["none"].measured():
        base = _healthy_rate(healthy)
        for name in list(plans)[1:]:
            if side.name in found[name].failed:
                continue
            mine = found[name].runs[side.name]
            ratio = _healthy_rate(mine) / base
            goal = (f">= {_HEALTHY_GOAL}", ratio >= _HEALTHY_GOAL) if side.is_ours else ("", None)
            figures.append(Figure(f"healthy rate / without, {name}, {side.name}", round(ratio, 3), "ratio", *goal))
            if not side.is_ours:
                figures.append(Figure(f"lost, {name}, {side.name}", sum(one.lost for one in mine), "events"))
    for name in list(plans)[1:]:
        figures += found[name].failures(f", {name}")
    for name in plans:
        figures += [*promises(found[name].ours, name), *model_account(found[name].all, name)]
    return figures


def kill(bootstrap: str, sides: Sequence[Side], runs: int, in_flight: int = 64) -> list[Figure]:
    """One SIGKILL at 45 % of the results, restarted at once: what is lost, repeated and paid again."""
    job = job_of(in_flight, seconds=20)
    found = in_turn(sides, runs, lambda side: _with_open(run(bootstrap, side, job, _killer(job))))
    figures = [figure for side, mine in found.measured() for figure in kill_figures(side, mine)]
    account = model_account(found.all, "SIGKILL")
    return [*figures, *found.failures(), *promises(found.ours, "SIGKILL"), *account]


def kill_figures(side: Side, mine: Sequence[Run]) -> list[Figure]:
    """Return what was paid again and how long nothing came, each with the counts that it is the difference of."""
    worst = max(mine, key=lambda one: one.model["extra_calls"] - one.notes["open"])
    extra = worst.model["extra_calls"] - worst.notes["open"]
    gaps_s = [longest_gap(one.outcomes.stamps) for one in mine]
    stall = max(0.0, statistics.median(gaps_s) - SESSION_S)
    counts = {
        "extra model calls of that run": worst.model["extra_calls"],
        "called for at the kill of that run, and no answer on the topic": worst.notes["open"],
        "calls in flight at the kill of that run": worst.notes["in_flight"],
    }
    figures = [
        Figure(
            f"extra model calls, less those whose answer was not on the topic at the kill, worst, {side.name}",
            extra,
            "calls",
            "<= 0" if side.is_ours else "",
            extra <= 0 if side.is_ours else None,
            is_strict=side.is_ours,
        ),
        *(Figure(f"{name}, {side.name}", count, "calls") for name, count in counts.items()),
        Figure(
            f"longest stall beyond the session timeout, {side.name}",
            round(stall, 2),
            "s",
            f"<= {_STALL_GOAL_S:g}" if side.is_ours else "",
            stall <= _STALL_GOAL_S if side.is_ours else None,
        ),
        Figure(f"longest time without a new result, worst, {side.name}", round(max(gaps_s), 2), "s"),
    ]
    if side.is_ours:
        return figures
    return [
        *figures,
        Figure(f"lost, {side.name}", sum(one.lost for one in mine), "events"),
        Figure(f"duplicate results, {side.name}", total(mine, "duplicates"), "events"),
        Figure(f"out of key order, {side.name}", total(mine, "disorder"), "events"),
    ]


def _with_open(one: Run) -> Run:
    """Add how many events had been called for whose answer was not on the result topic when the worker died.

    Nobody can know those answers: they are the floor of what is paid again.

    Raises:
        RunFailedError: the run ended before the kill.
    """
    if "at" not in one.notes:
        msg = "the run ended before the kill"
        raise RunFailedError(msg)
    on_topic = sum(stamp <= one.notes["at"] for stamp in one.outcomes.stamps)
    one.notes["open"] = one.notes["called"] - on_topic
    return one


def _killer(job: Job) -> Callable[[Stage], None]:
    def kill_once(stage: Stage) -> None:
        if stage.notes or len(stage.outcomes.counts) < _KILL_AT * job.events:
            return
        stage.worker.end(0.0)
        at, model = time.time(), stage.model_stats()
        # Some of its calls the server may not have missed yet.
        in_flight = model["in_flight"] + model["cut_off"]
        stage.notes.update(at=at, called=model["events"], in_flight=in_flight)
        stage.sampler.stop()
        stage.worker.start()
        stage.sampler = Sampler(stage.worker.pid)

    return kill_once


def _healthy_rate(runs: Sequence[Run]) -> float:
    return statistics.median(one.healthy_rate for one in runs)


def _with_plan(job: Job, plan: Plan) -> Job:
    return Job(job.in_flight, job.events, job.keys, plan)
