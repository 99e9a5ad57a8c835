"""`bench memory`: resident memory with a long backlog over that without one, at the same calls in flight.

The backlog lies on the topic before the worker starts, and each run reads only its first part. Without one, events are
sent as results come, so many ahead that the calls in flight are the same.
"""

import statistics
from collections.abc import Sequence

from bench.figures import Figure
from bench.runs import Feeder, Job, Run, Stage, model_server, new_topics, produce, run_on, topics_of
from bench.sides import Side
from bench.steadiness import Found, in_turn, job_of, median_efficiency, model_account, promises, total
from contracts.topics import Topics

BACKLOG = 1_000_000
_SECONDS = 20
_GOAL = 1.2
# With fewer calls in flight on one side the comparison says nothing.
_SAME = 0.9
# Events sent and not answered, in calls in flight: results are seen up to 0.2 s late, which is a second latency.
_AHEAD = 3


def memory(
    bootstrap: str, sides: Sequence[Side], runs: int, in_flight: int = 256, backlog: int = BACKLOG
) -> list[Figure]:
    """Measure both, on every side.

    Raises:
        RunFailedError: ours failed.
    """
    job = job_of(in_flight, _SECONDS)
    topics = new_topics()
    with topics_of(bootstrap, topics):
        produce(bootstrap, topics.events("standard"), range(max(backlog, job.events)), job.keys)
        behind = in_turn(sides, runs, lambda side: _behind(bootstrap, topics, side, job))
    live = in_turn([side for side, _ in behind.measured()], runs, lambda side: _fed(bootstrap, side, job))
    figures = [figure for side, mine in live.measured() for figure in _compare(side, behind, mine, backlog)]
    account = [*model_account(behind.all, "with backlog"), *model_account(live.all, "without backlog")]
    failures = [*behind.failures(" with backlog"), *live.failures(" without backlog")]
    ours = behind.ours
    # Of a backlog only the first part is read, so nothing can be said about loss there.
    strict = {"duplicate results": total(ours, "duplicates"), "out of key order": total(ours, "disorder")}
    kept = [
        Figure(f"{name}, penstock, with backlog", count, "events", "= 0", count == 0, is_strict=True)
        for name, count in strict.items()
    ]
    return [*figures, *failures, *kept, *promises(live.ours, "without backlog"), *account]


def _compare(side: Side, behind: Found, live: Sequence[Run], backlog: int) -> list[Figure]:
    name, many = side.name, behind.runs[side.name]
    (with_mb, with_peak), (without_mb, without_peak) = _resident(many), _resident(live)
    ratio = with_mb / without_mb
    busy = [median_efficiency(runs) for runs in (many, live)]
    is_fair = min(busy) >= _SAME * max(busy)
    goal = (f"<= {_GOAL}, at the same rate", ratio <= _GOAL and is_fair) if side.is_ours else ("", None)
    return [
        Figure(f"resident memory, {backlog:,} events of backlog / none, {name}", round(ratio, 3), "ratio", *goal),
        Figure(f"the same, of the peaks, {name}", round(with_peak / without_peak, 3), "ratio"),
        Figure(f"resident memory with backlog, {name}", round(with_mb), "MB"),
        Figure(f"resident memory without backlog, {name}", round(without_mb), "MB"),
        Figure(f"rate with backlog, {name}", round(busy[0], 3), "of N / latency"),
        Figure(f"rate without backlog, {name}", round(busy[1], 3), "of N / latency"),
    ]


def _resident(runs: Sequence[Run]) -> tuple[float, float]:
    """Return medians of the steady resident memory and of its highest value, MB."""
    peaks = [max(sample.rss_bytes for sample in one.samples) / 2**20 for one in runs]
    return statistics.median(one.steady.rss_mb for one in runs), statistics.median(peaks)


def _behind(bootstrap: str, topics: Topics, side: Side, job: Job) -> Run:
    with model_server(job.plan) as url:
        return run_on(bootstrap, topics, side, job, url)


def _fed(bootstrap: str, side: Side, job: Job) -> Run:
    """Run a side on events that are sent as its results come."""
    topics = new_topics()
    with topics_of(bootstrap, topics), model_server(job.plan) as url:
        feeder = Feeder(bootstrap, topics.events("standard"), job.keys)
        numbers = iter(range(job.events))

        def feed(done: int) -> None:
            """Send until so many are ahead."""
            while feeder.sent < done + _AHEAD * job.in_flight and (number := next(numbers, None)) is not None:
                feeder.send(number)
            feeder.flush()

        def fed(stage: Stage) -> None:
            feed(len(stage.outcomes.counts))

        feed(0)
        return run_on(bootstrap, topics, side, job, url, fed)
