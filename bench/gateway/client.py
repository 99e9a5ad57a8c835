"""`python -m bench.gateway.client JSON`: loads one gateway with signed webhooks, and prints what it saw as JSON.

A connection sends the next request when the answer to the last has come (closed loop). The CPU time of the gateway is
read by this process at the same instants as its own counters, so that the two belong together.
"""

import asyncio
import contextlib
import functools
import json
import resource
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import uvloop

from bench.gateway.wire import Connection, connect, rendered
from bench.processes import measure


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        session: of the gateway's processes, whose CPU time is read.
        secret: base64.
        most: requests that are rendered; the run ends early when they are used up.
    """

    port: int
    session: int
    secret: str
    body_bytes: int
    connections: int
    seconds: float
    warm_s: float
    most: int
    seed: int = 1


@dataclass
class Seen:
    """What a run showed.

    Attributes:
        client_share: CPU of this process over the wall time, shares of a core.
        server_share: the same of the gateway.
    """

    accepted: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_us: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    client_share: float = 0.0
    server_share: float = 0.0
    rss_mb: float = 0.0


class Load:
    """All connections of a run, and its counters."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = rendered(plan.secret, plan.body_bytes, plan.most, plan.seed)
        self._statuses: Counter[bytes] = Counter()
        self._latencies_s: list[float] = []
        self._is_over = asyncio.Event()

    async def run(self) -> Seen:
        """Warm up, measure, and stop."""
        connections = await asyncio.gather(*(self._begin() for _ in range(self._plan.connections)))
        await asyncio.sleep(self._plan.warm_s)
        self._statuses.clear()
        self._latencies_s.clear()
        before, used_s, began_s = measure(self._plan.session), _own_cpu_s(), time.perf_counter()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), self._plan.seconds)
        after, used_s, took_s = measure(self._plan.session), _own_cpu_s() - used_s, time.perf_counter() - began_s
        seen = self._seen(after.cpu_s - before.cpu_s, used_s, took_s)
        seen.rss_mb = after.rss_bytes / 2**20
        for connection in connections:
            connection.close()
        return seen

    def _seen(self, server_s: float, client_s: float, took_s: float) -> Seen:
        times, accepted = sorted(self._latencies_s), self._statuses[b"202"]
        return Seen(
            accepted,
            {status.decode(): count for status, count in self._statuses.items() if count},
            took_s,
            1e6 * server_s / max(1, accepted),
            1000 * times[len(times) // 2] if times else 0.0,
            1000 * times[int(len(times) * 0.99)] if times else 0.0,
            client_s / took_s,
            server_s / took_s,
        )

    async def _begin(self) -> Connection:
        connection = await connect(self._plan.port, _ignore)
        connection.on_answer = functools.partial(self._answered, connection)
        self._next(connection)
        return connection

    def _answered(self, connection: Connection, status: bytes, _head: bytes, took_s: float) -> None:
        self._latencies_s.append(took_s)
        self._statuses[status] += 1
        if connection.is_open:
            self._next(connection)

    def _next(self, connection: Connection) -> None:
        try:
            connection.send(self._requests.pop())
        except IndexError:
            self._is_over.set()


def _ignore(_status: bytes, _head: bytes, _took_s: float) -> None:
    """Take no notice."""


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _main(plan: Plan) -> Seen:
    return await Load(plan).run()


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_main(Plan(**json.loads(sys.argv[1])))))))  # noqa: T201 - read by the parent
