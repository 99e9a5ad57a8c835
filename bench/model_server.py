"""The benchmark's model: an OpenAI-compatible chat server of its own process, cheap enough not to be measured itself.

Run as `python -m bench.model_server PLAN`: it listens on a free port of 127.0.0.1, prints it, and ends on SIGTERM.
`GET /stats` says what it did, its CPU share since the first call and how late its answers were against its plan.

It reads only what the clients measured here send: HTTP/1.1, keep-alive, one request at a time, Content-Length.
"""

import asyncio
import heapq
import itertools
import json
import re
import signal
import sys
import time
from collections import Counter
from typing import cast

import uvloop

from bench.model_plan import Plan

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_EVENT = re.compile(rb"\r\nx-client-request-id: *([^\r]+)", re.IGNORECASE)
# The loop's timers have whole milliseconds; what is due within half of one is answered now, so that the mean is right.
_SLACK_S = 0.0005
_BIN_MS = 0.1
_BINS = 5000
_ANSWER = json.dumps(
    {
        "id": "answer-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * 300}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 75, "total_tokens": 175},
    }
)


def _response(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


_RESPONSES = {
    200: _response("200 OK", _ANSWER),
    400: _response("400 Bad Request", '{"error": {"message": "bad event", "type": "invalid_request_error"}}'),
    503: _response("503 Service Unavailable", '{"error": {"message": "try again", "type": "server_error"}}'),
}


class Model:
    """Answers by plan, when it is time, and counts."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[float, int, _Connection, int]] = []
        self._serial = itertools.count()
        self._armed_for = float("inf")
        self._timer: asyncio.TimerHandle | None = None
        self._calls: Counter[str] = Counter()
        self._late = [0] * (_BINS + 1)
        self._cpu_s = self._since = 0.0
        self._statuses: Counter[int] = Counter()
        self._first_call_at = 0.0
        self._in_flight = self._peak = self._cut_off = 0

    def call(self, event_id: str, connection: "_Connection") -> None:
        """Take a call; its answer goes out when its latency is over."""
        now = time.monotonic()
        if not self._calls:
            # Until then it waits while events are produced and a worker starts, which would lower its share.
            self._cpu_s, self._since, self._first_call_at = time.process_time(), now, time.time()
        self._calls[event_id] += 1
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        status, latency_s = self._plan.answer(event_id, self._calls[event_id])
        heapq.heappush(self._due, (now + latency_s, next(self._serial), connection, status))
        self._arm()

    def cut_off(self) -> None:
        """Note that a caller went away before its answer."""
        self._cut_off += 1
        self._in_flight -= 1

    def stats(self) -> str:
        """Return the counts as JSON; times in seconds, lateness in milliseconds."""
        now = time.monotonic()
        return json.dumps(
            {
                "calls": self._calls.total(),
                "events": len(self._calls),
                "extra_calls": self._calls.total() - len(self._calls),
                "statuses": self._statuses,
                "in_flight": self._in_flight,
                "peak_in_flight": self._peak,
                "cut_off": self._cut_off,
                "first_call_at": self._first_call_at,
                "cpu_share": (time.process_time() - self._cpu_s) / max(1e-9, now - self._since),
                "late_ms": {str(percent): _percentile(self._late, percent) for percent in (50, 99)},
            }
        )

    def _arm(self) -> None:
        if self._due and self._due[0][0] < self._armed_for:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = self._due[0][0]
            delay_s = max(0.0, self._armed_for - time.monotonic())
            self._timer = self._loop.call_later(delay_s, self._answer_due)

    def _answer_due(self) -> None:
        self._armed_for = float("inf")
        now = time.monotonic()
        while self._due and self._due[0][0] <= now + _SLACK_S:
            due_at, _, connection, status = heapq.heappop(self._due)
            if connection.answer(_RESPONSES[status]):
                self._in_flight -= 1
                self._statuses[status] += 1
                self._late[min(_BINS, max(0, int((now - due_at) * 1000 / _BIN_MS)))] += 1
                now = time.monotonic()
        self._arm()


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._transport = None
        if self._waits:
            self._waits = False
            self._model.cut_off()

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = received[:end]
        length = _LENGTH.search(head)
        if len(received) >= end + 4 + (int(length[1]) if length else 0):
            self._received = b""
            self._take(head)

    def answer(self, response: bytes) -> bool:
        """Write the answer; False when the client is gone."""
        if not self._waits or self._transport is None:
            return False
        self._waits = False
        self._transport.write(response)
        return True

    def _take(self, head: bytes) -> None:
        if head.startswith(b"POST /v1/chat/completions "):
            event = _EVENT.search(head)
            self._waits = True
            self._model.call(event[1].decode() if event else "", self)
        elif self._transport is not None:
            self._transport.write(_response("200 OK", self._model.stats()))


def _percentile(bins: list[int], percent: float) -> float:
    """Return the upper edge of the bin that holds the percentile, in ms."""
    wanted, seen = sum(bins) * percent / 100, 0
    for number, count in enumerate(bins):
        seen += count
        if count and seen >= wanted:
            return round((number + 1) * _BIN_MS, 1)
    return 0.0


async def main(plan: Plan) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    model = Model(plan)
    server = await loop.create_server(lambda: _Connection(model), "127.0.0.1", 0, backlog=4096)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - how the parent learns the port
    await stop.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(main(Plan.from_text(sys.argv[1])))
