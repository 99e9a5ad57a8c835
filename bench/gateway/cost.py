"""`requests`: CPU time of a gateway per accepted webhook, and its latencies, beside its controls in the same run.

`servers` does the same for the bare control alone, on one HTTP server after the other.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.figures import Figure
from bench.gateway.client import Plan, Seen
from bench.gateway.sides import SECRET, Running, Side, running, site
from bench.runs import RunFailedError
from tests.support import ROOT

SECONDS, WARM_S = 5.0, 1.5
# (bytes of a body, connections)
CELLS = ((1000, 50), (1000, 500), (20_000, 50), (20_000, 500))
# Requests that are rendered per second of a run: more than any side answers.
_MOST_PER_S = {1000: 24_000, 20_000: 10_000}
_LIMIT_S = 60.0
_BUSY_CLIENT = 0.9
# Our goals: (connections, most of FastAPI's CPU, most of the bare control's), bodies of 1 KB.
GOALS = {50: (0.4, 1.3), 500: (0.25, 1.3)}
Cell = tuple[int, int]
# Title, unit, value, digits.
_KINDS: tuple[tuple[str, str, Callable[[Seen], float], int], ...] = (
    ("CPU per accepted request", "us", lambda seen: seen.cpu_us, 1),
    ("accepted per second", "requests/s", lambda seen: seen.accepted / seen.seconds, 0),
    ("answer p50", "ms", lambda seen: seen.p50_ms, 1),
    ("answer p99", "ms", lambda seen: seen.p99_ms, 1),
    ("CPU of the load client, shares of a core", "share", lambda seen: seen.client_share, 2),
    ("CPU of the server, shares of a core", "share", lambda seen: seen.server_share, 2),
)
Table = dict[tuple[str, Cell], list[Seen]]


def requests(bootstrap: str, sides: Sequence[Side], runs: int, cells: Sequence[Cell] = CELLS) -> list[Figure]:
    """Run every side in every cell, in turn, so that all of them meet the same machine.

    Raises:
        RunFailedError: a side did not start, or ours refused something.
    """
    table: Table = defaultdict(list)
    for turn in range(runs):
        # By turns from the front and from the back: nobody always comes after the same one.
        for side in sides if turn % 2 == 0 else tuple(reversed(sides)):
            with site(bootstrap) as place, running(side, place) as server:
                for cell in cells:
                    table[side.name, cell].append(load(server, *cell))
    return [figure for cell in cells for figure in _figures(table, cell, [side.name for side in sides])]


def load(
    server: Running, body_bytes: int, connections: int, seconds: float = SECONDS, *, only_accepted: bool = True
) -> Seen:
    """Load a server from a process of its own.

    Raises:
        RunFailedError: the client failed, or nothing was accepted, or something was not although all should be.
    """
    rate = next(rate for size, rate in _MOST_PER_S.items() if body_bytes <= size)
    most = int(rate * (seconds + WARM_S))
    plan = Plan(server.port, server.session, SECRET, body_bytes, connections, seconds, WARM_S, most)
    command = (sys.executable, "-m", "bench.gateway.client", json.dumps(asdict(plan)))
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=_LIMIT_S)
    if ran.returncode:
        message = f"the client failed: {ran.stderr.strip()[-500:]}"
        raise RunFailedError(message)
    seen = Seen(**json.loads(ran.stdout))
    if seen.accepted == 0 or (only_accepted and set(seen.statuses) != {"202"}):
        message = f"{seen.statuses}\n{server.output()}"
        raise RunFailedError(message)
    return seen


def _figures(table: Table, cell: Cell, names: Sequence[str]) -> list[Figure]:
    body_bytes, connections = cell
    where = f"{body_bytes // 1000} KB, c={connections}"
    found = []
    for title, unit, of, digits in _KINDS:
        for name in names:
            value = median(of(seen) for seen in table[name, cell])
            found.append(Figure(f"{title}, {where}, {name}", round(value, digits), unit))
    if body_bytes == CELLS[0][0] and "penstock" in names:
        found += _ratios(table, cell, names, where)
    return found


def _ratios(table: Table, cell: Cell, names: Sequence[str], where: str) -> list[Figure]:
    """Return the goals; ratios are of the medians."""
    usual, bare = GOALS.get(cell[1], (0.4, 1.3))
    goals = {"fastapi": usual, "uvicorn": bare}
    cpu_us = {name: median(seen.cpu_us for seen in table[name, cell]) for name in names}
    found = []

    def add(whose: str, side: str, over: str, *judged: Any) -> None:
        title = f"CPU per accepted request{whose} over that of {over}, {where}"
        found.append(Figure(title, round(cpu_us[side] / cpu_us[over], 2), "ratio", *judged))

    for name in ("fastapi", "uvicorn", "granian", "least"):
        # Without a goal: the bare function on our server, and what a 202 consists of at the least.
        if name in cpu_us:
            goal = goals.get(name)
            add("", "penstock", name, *((f"<= {goal:g}", cpu_us["penstock"] / cpu_us[name] <= goal) if goal else ()))
    # What anybody could reach with these promises: the goals are judged by it (docs/adr/0026).
    for name in ("fastapi", "uvicorn", "granian"):
        if name in cpu_us and "least" in cpu_us:
            add(" of the least", "least", name)
    return found
