"""`bench engine`: throughput of the possible and CPU per event, with the order of every key, against the control."""

import statistics
from collections.abc import Sequence

from bench.figures import Figure
from bench.runs import Job, Run, run
from bench.sides import Side

# (goal of rate / (in flight / latency), keys) by calls in flight
GOALS = {64: (0.97, 500), 256: (0.97, 500), 1024: (0.95, 5000)}
CPU_GOAL_US = 120
_SECONDS = 9


def job_of(in_flight: int, seconds: float = _SECONDS) -> Job:
    """Return a job that lasts so many seconds at the possible rate."""
    job = Job(in_flight, 0, GOALS.get(in_flight, (0.0, 500))[1])
    return Job(in_flight, int(seconds * in_flight / job.plan.latency_s), job.keys)


def alternate(bootstrap: str, sides: Sequence[Side], job: Job, runs: int) -> dict[str, list[Run]]:
    """Run the sides in turn, so many times."""
    found: dict[str, list[Run]] = {side.name: [] for side in sides}
    for _ in range(runs):
        for side in sides:
            found[side.name].append(run(bootstrap, side, job))
    return found


def engine(bootstrap: str, sides: Sequence[Side], in_flights: Sequence[int], runs: int) -> list[Figure]:
    """Measure each number of calls in flight; the first side is ours."""
    figures: list[Figure] = []
    for in_flight in in_flights:
        found = alternate(bootstrap, sides, job_of(in_flight), runs)
        figures += speed(found, sides, in_flight)
        ours = found[sides[0].name]
        figures += promises(ours, f"N={in_flight}")
        figures.append(model_account([one for mine in found.values() for one in mine]))
    return figures


def speed(found: dict[str, list[Run]], sides: Sequence[Side], in_flight: int) -> list[Figure]:
    """Return efficiency, CPU, memory and disorder per side; goals are ours alone."""
    figures: list[Figure] = []
    goal = GOALS.get(in_flight, (0.97, 500))[0]
    best_ordered = max((median_efficiency(found[side.name]) for side in sides[1:] if side.ordered), default=0.0)
    for number, side in enumerate(sides):
        mine, label = found[side.name], f"{side.name}, N={in_flight}"
        efficiency = median_efficiency(mine)
        cpu_us = statistics.median(one.steady.cpu_us for one in mine)
        rss_mb = statistics.median(one.steady.rss_mb for one in mine)
        is_ours = number == 0
        holds = efficiency >= goal and efficiency > best_ordered if is_ours else None
        text = f">= {goal}, above ordered peers" if is_ours else ""
        figures += [
            Figure(f"rate / (N / latency), {label}", round(efficiency, 3), "ratio", text, holds),
            Figure(
                f"CPU per event, {label}",
                round(cpu_us),
                "us",
                f"<= {CPU_GOAL_US}" if is_ours and in_flight == 256 else "",  # noqa: PLR2004 - where the goal is set
                cpu_us <= CPU_GOAL_US if is_ours and in_flight == 256 else None,  # noqa: PLR2004 - the same
            ),
            Figure(f"resident memory, {label}", round(rss_mb), "MB"),
        ]
        if not is_ours:
            figures += [
                Figure(f"out of key order, {label}", total(mine, "disorder"), "events"),
                Figure(f"lost, {label}", sum(one.lost for one in mine), "events"),
            ]
    return figures


def promises(ours: Sequence[Run], label: str) -> list[Figure]:
    """Return what must hold in every run of ours: these decide the exit status."""
    counts = {
        "lost": sum(one.lost for one in ours),
        "duplicate results": total(ours, "duplicates"),
        "out of key order": total(ours, "disorder"),
    }
    return [
        Figure(f"{name}, penstock, {label}", count, "events", "= 0", count == 0, is_strict=True)
        for name, count in counts.items()
    ]


def model_account(runs: Sequence[Run]) -> Figure:
    """Return how much of a core the model server used: far below 1, it was not the bottleneck."""
    share = max(run_.model["cpu_share"] for run_ in runs)
    late = max(run_.model["late_ms"]["99"] for run_ in runs)
    name = f"model server, highest share of a core; p99 of lateness {late} ms"
    return Figure(name, round(share, 2), "cores", "< 0.7", share < 0.7)  # noqa: PLR2004 - a third of a core to spare


def median_efficiency(runs: Sequence[Run]) -> float:
    """Return the median efficiency."""
    return statistics.median(run_.efficiency for run_ in runs)


def total(runs: Sequence[Run], name: str) -> int:
    """Add up a count of the outcomes."""
    return sum(int(getattr(run_.outcomes, name)) for run_ in runs)
