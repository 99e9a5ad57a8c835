"""`bench engine`: throughput of the possible and CPU per event, with the order of every key, against the control."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import click

from bench.figures import Figure
from bench.runs import Job, Run, RunFailedError, run
from bench.sides import LEAST, Side

# (goal of rate / (in flight / latency), keys) by calls in flight
GOALS = {64: (0.97, 500), 256: (0.97, 500), 1024: (0.95, 5000)}
CPU_GOAL_US = 120
_CPU_GOAL_AT = 256
_SECONDS = 9


def job_of(in_flight: int, seconds: float = _SECONDS) -> Job:
    """Return a job that lasts so many seconds at the possible rate."""
    job = Job(in_flight, 0, GOALS.get(in_flight, (0.0, 500))[1])
    return Job(in_flight, int(seconds * in_flight / job.plan.latency_s), job.keys)


@dataclass
class Found:
    """The runs of every side that did the job.

    Attributes:
        failed: those that did not, with the reason; they were not run again.
    """

    sides: Sequence[Side]
    runs: dict[str, list[Run]] = field(default_factory=dict)
    failed: dict[str, RunFailedError] = field(default_factory=dict)

    @property
    def ours(self) -> list[Run]:
        """The first side's runs."""
        return self.runs[self.sides[0].name]

    @property
    def all(self) -> list[Run]:
        """All runs."""
        return [one for mine in self.runs.values() for one in mine]

    def measured(self) -> list[tuple[Side, list[Run]]]:
        """Return the sides that did the job, ours first."""
        return [(side, self.runs[side.name]) for side in self.sides if side.name not in self.failed]

    def failures(self, label: str = "") -> list[Figure]:
        """Return who did not do the job, and how far they came."""
        reasons = {name: str(error).partition("\n")[0].rstrip(":") for name, error in self.failed.items()}
        return [
            Figure(f"not measured{label}: {reason}", self.failed[name].done, "results")
            for name, reason in reasons.items()
        ]


def in_turn(sides: Sequence[Side], runs: int, measure: Callable[[Side], Run]) -> Found:
    """Measure the sides in turn, so many times; a peer that fails once is not run again.

    Raises:
        RunFailedError: ours failed.
    """
    found = Found(sides, {side.name: [] for side in sides})
    for _ in range(runs):
        for side in sides:
            if side.name in found.failed:
                continue
            try:
                found.runs[side.name].append(measure(side))
            except RunFailedError as error:
                if side.is_ours:
                    raise
                found.failed[side.name] = error
                click.echo(f"not measured: {error}", err=True)
    return found


def alternate(bootstrap: str, sides: Sequence[Side], job: Job, runs: int) -> Found:
    """Run the job on the sides in turn, so many times.

    Raises:
        RunFailedError: ours failed.
    """
    return in_turn(sides, runs, lambda side: run(bootstrap, side, job))


def engine(bootstrap: str, sides: Sequence[Side], in_flights: Sequence[int], runs: int) -> list[Figure]:
    """Measure each number of calls in flight; the first side is ours.

    Raises:
        RunFailedError: ours failed.
    """
    figures: list[Figure] = []
    for in_flight in in_flights:
        found = alternate(bootstrap, sides, job_of(in_flight), runs)
        label = f"N={in_flight}"
        figures += [*speed(found, in_flight), *found.failures(f", {label}")]
        figures += [*promises(found.ours, label), *model_account(found.all, label)]
    return figures


def speed(found: Found, in_flight: int) -> list[Figure]:
    """Return efficiency, CPU, memory and disorder per side; goals are ours alone."""
    figures: list[Figure] = []
    goal = GOALS.get(in_flight, (0.97, 500))[0]
    peers = [runs for side, runs in found.measured()[1:] if side.ordered and side.name != LEAST.name]
    best = max(map(median_efficiency, peers), default=0.0)
    for side, mine in found.measured():
        label = f"{side.name}, N={in_flight}"
        efficiency = median_efficiency(mine)
        cpu_us = statistics.median(one.steady.cpu_us for one in mine)
        rss_mb = statistics.median(one.steady.rss_mb for one in mine)
        holds = efficiency >= goal and efficiency > best if side.is_ours else None
        text = f">= {goal}{', above ordered peers' if peers else ''}" if side.is_ours else ""
        has_cpu_goal = side.is_ours and in_flight == _CPU_GOAL_AT
        cpu_goal = (f"<= {CPU_GOAL_US}", cpu_us <= CPU_GOAL_US) if has_cpu_goal else ("", None)
        figures += [
            Figure(f"rate / (N / latency), {label}", round(efficiency, 3), "ratio", text, holds),
            Figure(f"CPU per event, {label}", round(cpu_us), "us", *cpu_goal),
            Figure(f"resident memory, {label}", round(rss_mb), "MB"),
        ]
        if not side.is_ours:
            figures += [
                Figure(f"out of key order, {label}", total(mine, "disorder"), "events"),
                Figure(f"lost, {label}", sum(one.lost for one in mine), "events"),
            ]
    return [*figures, *_over_the_least(found, in_flight)]


def _over_the_least(found: Found, in_flight: int) -> list[Figure]:
    """Return our CPU per event over what anybody needs at the least, and the goal over that: below 1 it is none."""
    cpu_us = {
        side.name: statistics.median(one.steady.cpu_us for one in mine) for side, mine in found.measured() if mine
    }
    least, ours = cpu_us.get(LEAST.name), cpu_us[found.sides[0].name]
    if least is None:
        return []
    figures = [Figure(f"CPU per event over that of the least, N={in_flight}", round(ours / least, 2), "ratio")]
    if in_flight == _CPU_GOAL_AT:
        title = f"goal of CPU per event over that of the least, N={in_flight}"
        figures.append(Figure(title, round(CPU_GOAL_US / least, 2), "ratio"))
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


def model_account(runs: Sequence[Run], label: str) -> list[Figure]:
    """Return how much of a core the model server used, and how late it was: far below both, it was no bottleneck."""
    share = max(run_.model["cpu_share"] for run_ in runs)
    late_ms = max(run_.model["late_ms"]["99"] for run_ in runs)
    return [
        Figure(f"model server, highest share of a core, {label}", round(share, 2), "cores", "< 0.7", share < 0.7),  # noqa: PLR2004 - a third of a core to spare
        Figure(f"model server, highest p99 of lateness, {label}", late_ms, "ms", "<= 10", late_ms <= 10),  # noqa: PLR2004 - a twentieth of an answer's time
    ]


def median_efficiency(runs: Sequence[Run]) -> float:
    """Return the median efficiency."""
    return statistics.median(run_.efficiency for run_ in runs)


def total(runs: Sequence[Run], name: str) -> int:
    """Add up a count of the outcomes."""
    return sum(int(getattr(run_.outcomes, name)) for run_ in runs)
