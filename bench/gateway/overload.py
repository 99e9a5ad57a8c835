"""`overload`: ten times what the log can take is offered; what gets through, and how the rest is refused.

The log is made the bottleneck, by a quota of the broker for producers: so that capacity is a number that a slow machine
does not change, and so that the offered rate is one that the client can make on the same machine.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from statistics import fmean

import click

from bench.figures import Figure
from bench.gateway.cost import load
from bench.gateway.flood import Flooded, Plan
from bench.gateway.sides import SECRET, Running, Side, running, site
from bench.runs import RunFailedError
from tests.kafkalab.jars import find_java, jar_folder
from tests.kafkalab.version import kafka_version
from tests.support import ROOT

BODY_BYTES = 1000
FACTOR = 10
RAMP_S, PLATEAU_S = 6.0, 20.0
_QUOTA_BYTES_PER_S = 250_000
_MOST_CONNECTIONS = 3000
_CLOSED_LOOP = 100
_SETTINGS = {
    # Uncompressed, so that the quota is a number of events; the buffer holds about a second of them.
    "producer": {"compression": "none", "max_buffer_bytes": 256 * 1024}
}
_LIMIT_S = 120.0
_REFUSALS = frozenset({"429", "503"})
# Our goals. Memory may move by what a garbage collector and 3,000 connections make it move.
GOODPUT_GOAL, REFUSAL_GOAL_MS, RSS_GOAL = 0.9, 50, 1.1


def overload(bootstrap: str, side: Side) -> list[Figure]:
    """Measure capacity, offer ten times as much, and look at everything.

    Raises:
        RunFailedError: it did not start, or the client failed.
    """
    with quota(bootstrap, _QUOTA_BYTES_PER_S), site(bootstrap) as place, running(side, place, _SETTINGS) as server:
        # Twice, because a quota looks back and so starts out generous.
        load(server, BODY_BYTES, _CLOSED_LOOP, 6.0, only_accepted=False)
        peak = load(server, BODY_BYTES, _CLOSED_LOOP, 12.0)
        rate = peak.accepted / peak.seconds
        plan = Plan(
            server.port, server.session, SECRET, BODY_BYTES, FACTOR * rate, RAMP_S, PLATEAU_S, _MOST_CONNECTIONS
        )
        seen = flood(plan, server)
        click.echo(f"answers to the flood: {seen.statuses}")
        return _figures(rate, seen)


def flood(plan: Plan, server: Running) -> Flooded:
    """Run the flood in a process of its own.

    Raises:
        RunFailedError: it failed.
    """
    command = (sys.executable, "-m", "bench.gateway.flood", json.dumps(asdict(plan)))
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=_LIMIT_S)
    if ran.returncode:
        message = f"the client failed: {ran.stderr.strip()[-500:]}\n{server.output()}"
        raise RunFailedError(message)
    return Flooded(**json.loads(ran.stdout))


class quota:  # noqa: N801 - a context manager, named as contextlib's are
    """Let every producer put so many bytes a second on the broker, for the time of the block."""

    def __init__(self, bootstrap: str, bytes_per_s: int) -> None:
        self._bootstrap = bootstrap
        self._bytes_per_s = bytes_per_s

    def __enter__(self) -> None:
        """Set it."""
        self._alter("--add-config", f"producer_byte_rate={self._bytes_per_s}")

    def __exit__(self, *_error: object) -> None:
        """Remove it."""
        self._alter("--delete-config", "producer_byte_rate")

    def _alter(self, *what: str) -> None:
        jars = f"{jar_folder(kafka_version())}/*"
        command = (find_java(), "-cp", jars, "kafka.admin.ConfigCommand", "--bootstrap-server", self._bootstrap)
        entity = ("--alter", "--entity-type", "clients", "--entity-default")
        ran = subprocess.run((*command, *entity, *what), capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        if ran.returncode:
            message = f"the broker takes no quota: {(ran.stderr or ran.stdout).strip()[-300:]}"
            raise RunFailedError(message)


def _figures(peak: float, seen: Flooded) -> list[Figure]:
    third = max(1, len(seen.rss_mb) // 3)
    growth = round(fmean(seen.rss_mb[-third:]) / fmean(seen.rss_mb[:third]), 2) if seen.rss_mb else 0.0
    refused = sum(count for status, count in seen.statuses.items() if status in _REFUSALS)
    others = sum(count for status, count in seen.statuses.items() if status not in {*_REFUSALS, "202"})
    unready, refusal = seen.first_unready_at_s, seen.first_refusal_at_s
    lead_s = round(refusal - unready, 2) if unready is not None and refusal is not None else -1.0
    share = round(seen.goodput / peak, 2) if peak else 0.0
    again_s = -1.0 if seen.ready_again_s is None else round(seen.ready_again_s, 1)

    def at_most(name: str, value: float, unit: str, goal: float) -> Figure:
        return Figure(name, value, unit, f"<= {goal:g}" if goal else "= 0", value <= goal)

    def at_least(name: str, value: float, unit: str, goal: float) -> Figure:
        return Figure(name, value, unit, f">= {goal:g}", value >= goal)

    return [
        Figure("accepted per second at most, closed loop", round(peak), "requests/s"),
        Figure("offered per second at the highest", round(FACTOR * peak), "requests/s"),
        Figure("not sent, all connections waiting", seen.unsent, "requests"),
        at_least("accepted under overload over at most", share, "ratio", GOODPUT_GOAL),
        Figure("refused with 429 or 503", refused, "requests"),
        at_most("refused without Retry-After", seen.without_retry_after, "requests", 0),
        at_most("answered otherwise, or not at all", others, "requests", 0),
        Figure("refusal p50", round(seen.refusal_p50_ms, 1), "ms"),
        at_most("refusal p99", round(seen.refusal_p99_ms, 1), "ms", REFUSAL_GOAL_MS),
        at_least("readiness said no before the first refusal by", lead_s, "s", 0),
        at_least("ready again after the end", again_s, "s", 0),
        at_least("accepted of 50 sent afterwards", seen.accepted_afterwards, "requests", 50),
        at_most("memory, last third of the overload over its first", growth, "ratio", RSS_GOAL),
        Figure("memory at the highest", round(max(seen.rss_mb, default=0.0)), "MB"),
    ]
