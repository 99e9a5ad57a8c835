"""`python -m bench.transport`: CPU per call of both transports, against a server in a process of its own.

The server answers a fixed answer after a fixed latency. It is known not to be the bottleneck when its own CPU use,
reported beside each figure, stays below one core: below 0.8 the figure counts.
"""

import asyncio
import multiprocessing
import resource
import statistics
import sys
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import uvloop

from bench.figures import FOLDER, Figure, publish
from bench.plot import bars
from streams.providers.transport.base import Transport
from streams.providers.transport.general import General
from streams.providers.transport.lean import Lean

_LATENCY_S = 0.2
# A third: where the own client was measured by itself, against a general one (docs/adr/0010).
_GOAL = 0.34
_BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 1700 + b'"}],"max_tokens":512}'
_JSON = b'{"id":"c1","choices":[{"message":{"content":"' + b"y" * 400 + b'"},"finish_reason":"stop"}]}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_JSON), _JSON)


class _Answering(asyncio.Protocol):
    """Answers every request whose end has come; requests come one at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        """Answer later once the request is whole."""
        self._seen += data
        if self._seen.endswith(b'"max_tokens":512}'):
            self._seen = b""
            asyncio.get_running_loop().call_later(_LATENCY_S, self._transport.write, _ANSWER)  # type: ignore[attr-defined]


def _serve(pipe: Pipe) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", 0, backlog=4096)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def _measure(transport: Transport, in_flight: int, calls: int) -> tuple[float, float]:
    """Return CPU microseconds per call and calls per second, warm."""

    async def caller(count: int) -> None:
        for _ in range(count):
            await transport.post("/chat/completions", _BODY, {"X-Client-Request-Id": "evt-1"}, 30.0)

    await transport.start()
    await asyncio.gather(*(caller(2) for _ in range(in_flight)))
    cpu_s, began_at_s = time.process_time(), time.monotonic()
    each = max(1, calls // in_flight)
    await asyncio.gather(*(caller(each) for _ in range(in_flight)))
    done = each * in_flight
    result = (time.process_time() - cpu_s) / done * 1e6, done / (time.monotonic() - began_at_s)
    await transport.aclose()
    return result


def _server_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main(runs: int = 5) -> int:
    """Measure both, alternating; print the table and write the figures file."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    port, figures = ours.recv(), []
    for in_flight in (64, 256, 1024):
        found: dict[str, list[tuple[float, float, float]]] = {"lean": [], "aiohttp": []}
        for _ in range(runs):
            for name, kind in (("lean", Lean), ("aiohttp", General)):
                transport = kind(f"http://127.0.0.1:{port}/v1", {"Content-Type": "application/json"}, in_flight)
                before_s, began_at_s = _server_cpu_s(server.pid or 0), time.monotonic()
                cpu_us, rate = uvloop.run(_measure(transport, in_flight, in_flight * 10))
                share = (_server_cpu_s(server.pid or 0) - before_s) / (time.monotonic() - began_at_s)
                found[name].append((cpu_us, rate * _LATENCY_S / in_flight, share))
        for name, rows in found.items():
            cpu_us, ratio, share = (statistics.median(column) for column in zip(*rows, strict=True))
            label = f"{name}, {in_flight} in flight"
            figures += [
                Figure(f"CPU per call, {label}", round(cpu_us, 1), "us"),
                Figure(f"rate / (N / L), {label}", round(ratio, 3), "ratio"),
                Figure(f"server's CPU, {label}", round(share, 2), "cores", "< 0.8", share < 0.8),  # noqa: PLR2004 - goal
            ]
        lean_us, general_us = (statistics.median(row[0] for row in found[name]) for name in ("lean", "aiohttp"))
        share = lean_us / general_us
        name = f"CPU per call, lean over aiohttp, {in_flight} in flight"
        figures.append(Figure(name, round(share, 2), "ratio", f"<= {_GOAL}", share <= _GOAL))
    server.kill()
    status = publish("transport", "python -m bench.transport", runs, figures)
    (FOLDER / "transport.svg").write_text(bars("transport", figures), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
