"""`python -m bench.gateway.flood JSON`: offers a rate whatever is answered (open loop), and prints what it saw as JSON.

The rate grows evenly to its highest, stays there, and stops. Beside it, readiness is asked 20 times a second.
"""

import asyncio
import functools
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

import uvloop

from bench.gateway.wire import Connection, connect, rendered
from bench.processes import measure

_TICK_S = 0.005
_SETTLE_S = 12.0
# A server closes idle connections, Penstock after 10 s; a client that uses one for longer meets that moment.
_IDLE_LIMIT_S = 4.0
_PROBE = (b"GET /readyz HTTP/1.1\r\nhost: gateway.example\r\n\r\n", b"")
_PROBE_EVERY_S = 0.05
_RSS_EVERY_S = 0.25
_GOOD, _REFUSALS = b"202", frozenset({b"429", b"503"})


@dataclass(frozen=True)
class Plan:
    """One flood.

    Attributes:
        session: of the gateway's processes, whose memory is read.
        rate: the highest, requests per second.
        most_connections: beyond it a request is not sent, and counted.
    """

    port: int
    session: int
    secret: str
    body_bytes: int
    rate: float
    ramp_s: float
    plateau_s: float
    most_connections: int
    seed: int = 1

    def due(self, at_s: float) -> int:
        """Return how many are to be sent by a time since the beginning."""
        ramp_s = min(at_s, self.ramp_s)
        plateau_s = min(max(0.0, at_s - self.ramp_s), self.plateau_s)
        return int(self.rate * (ramp_s * ramp_s / (2 * self.ramp_s) + plateau_s))


@dataclass
class Flooded:
    """What a flood showed; times are seconds since its beginning.

    Attributes:
        goodput: accepted per second while the rate was highest.
        without_retry_after: refusals that name no time.
        refusals_s: how long refusals took, sorted.
        ready_again_s: from the end of the flood; None when not within some seconds.
        rss_mb: (time, megabytes) while the rate was highest.
    """

    offered: int = 0
    unsent: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    goodput: float = 0.0
    without_retry_after: int = 0
    refusal_p50_ms: float = 0.0
    refusal_p99_ms: float = 0.0
    first_refusal_at_s: float | None = None
    first_unready_at_s: float | None = None
    ready_again_s: float | None = None
    accepted_afterwards: int = 0
    rss_mb: list[float] = field(default_factory=list)


class Flood:
    """All connections of a flood, and its counters."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = rendered(plan.secret, plan.body_bytes, plan.due(1e9) + 100, plan.seed)
        self._idle: list[tuple[Connection, float]] = []
        self._open = 0
        self._statuses: Counter[bytes] = Counter()
        self._refusals_s: list[float] = []
        self._accepted_at_s: list[float] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._began_s = 0.0
        self._ready: list[tuple[float, bool]] = []
        self.seen = Flooded()

    async def run(self) -> Flooded:
        """Flood, and look whether it is over afterwards."""
        plan, seen = self._plan, self.seen
        self._began_s = time.perf_counter()
        probing = asyncio.create_task(self._probe())
        weighing = asyncio.create_task(self._weigh())
        end_s = plan.ramp_s + plan.plateau_s
        while (now_s := self._now()) < end_s:
            for _ in range(plan.due(now_s) - seen.offered):
                self._offer()
            await asyncio.sleep(_TICK_S)
        seen.ready_again_s = await self._wait_until_ready(end_s)
        await self._afterwards()
        probing.cancel()
        weighing.cancel()
        self._sum_up(end_s)
        return seen

    def _now(self) -> float:
        return time.perf_counter() - self._began_s

    def _offer(self) -> None:
        self.seen.offered += 1
        while self._idle:
            connection, since_s = self._idle.pop()
            if connection.is_open and self._now() - since_s < _IDLE_LIMIT_S:
                connection.send(self._requests.pop())
                return
            connection.close()
            self._open -= 1
        if self._open >= self._plan.most_connections:
            self.seen.unsent += 1
            return
        self._open += 1
        opening = asyncio.create_task(self._send_on_new())
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _send_on_new(self) -> None:
        try:
            connection = await connect(self._plan.port, lambda *_: None)
        except OSError:
            self._open -= 1
            self._statuses[b"no connection"] += 1
            return
        connection.on_answer = functools.partial(self._answered, connection)
        connection.send(self._requests.pop())

    def _answered(self, connection: Connection, status: bytes, head: bytes, took_s: float) -> None:
        self._statuses[status] += 1
        if status == _GOOD:
            self._accepted_at_s.append(self._now())
        elif status in _REFUSALS:
            self._refusals_s.append(took_s)
            if self.seen.first_refusal_at_s is None:
                self.seen.first_refusal_at_s = self._now()
            if b"retry-after:" not in head.lower():
                self.seen.without_retry_after += 1
        if connection.is_open and status != b"lost":
            self._idle.append((connection, self._now()))
        else:
            self._open -= 1

    async def _probe(self) -> None:
        """Ask for readiness, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            answer: asyncio.Future[bytes] = loop.create_future()
            connection = await connect(self._plan.port, lambda status, *_, into=answer: into.set_result(status))
            at_s = self._now()
            connection.send(_PROBE)
            is_ready = await answer == b"200"
            self._ready.append((at_s, is_ready))
            if not is_ready and self.seen.first_unready_at_s is None:
                self.seen.first_unready_at_s = at_s
            connection.close()
            await asyncio.sleep(_PROBE_EVERY_S)

    async def _weigh(self) -> None:
        await asyncio.sleep(self._plan.ramp_s)
        while self._now() < self._plan.ramp_s + self._plan.plateau_s:
            self.seen.rss_mb.append(measure(self._plan.session).rss_bytes / 2**20)
            await asyncio.sleep(_RSS_EVERY_S)

    async def _wait_until_ready(self, end_s: float) -> float | None:
        while self._now() < end_s + _SETTLE_S:
            if self._ready and self._ready[-1][0] > end_s and self._ready[-1][1]:
                return self._ready[-1][0] - end_s
            await asyncio.sleep(_PROBE_EVERY_S)
        return None

    async def _afterwards(self) -> None:
        """Send some more, one after the other: all of them should be accepted."""
        for _ in range(50):
            answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            connection = await connect(self._plan.port, lambda status, *_, into=answer: into.set_result(status))
            connection.send(self._requests.pop())
            self.seen.accepted_afterwards += await answer == _GOOD
            connection.close()

    def _sum_up(self, end_s: float) -> None:
        seen, times = self.seen, sorted(self._refusals_s)
        seen.statuses = {status.decode(): count for status, count in self._statuses.items()}
        good = [at_s for at_s in self._accepted_at_s if self._plan.ramp_s <= at_s < end_s]
        seen.goodput = len(good) / self._plan.plateau_s
        if times:
            seen.refusal_p50_ms = 1000 * times[len(times) // 2]
            seen.refusal_p99_ms = 1000 * times[int(len(times) * 0.99)]


async def _main(plan: Plan) -> Flooded:
    return await Flood(plan).run()


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_main(Plan(**json.loads(sys.argv[1])))))))  # noqa: T201 - read by the parent
