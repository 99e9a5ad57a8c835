"""The bare controls: verify, produce over confluent-kafka, answer after the ack, and nothing else.

One of the same thing per way to serve: `app` is ASGI, for uvicorn and for granian; `rsgi` is granian's own interface;
run as a program with a port, it is a protocol of the event loop over llhttp, the parser of Node.js and of uvicorn.
Reads from the environment: BENCH_KAFKA, BENCH_TOPIC, BENCH_SECRET (base64). The producer has the settings that
Penstock's has, and like it is polled by the event loop, which is cheaper than a thread (docs/adr/0008).
They log, count and bound nothing, and their records have no headers.
"""

import asyncio
import base64
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from confluent_kafka import Producer

from bench.gateway.controls.signature import is_authentic

_TICK_S = 0.005
_SECRET = base64.b64decode(os.environ["BENCH_SECRET"])
_TOPIC = os.environ["BENCH_TOPIC"]
_ANSWER = b'{"status":"accepted"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]
Headers = list[tuple[str, str | bytes | None]]
_HEAD = b"HTTP/1.1 %d X\r\n" + b"".join(b"%b: %b\r\n" % header for header in _HEADERS) + b"\r\n"


class Log:
    """The producer, made with the first record."""

    def __init__(self) -> None:
        self._client: Producer | None = None
        self._waiting = 0

    async def put(self, key: bytes, value: bytes, headers: Headers | None = None) -> tuple[int, int]:
        """Return partition and offset when the record is confirmed."""
        if self._client is None:
            self._client = Producer(
                {
                    "bootstrap.servers": os.environ["BENCH_KAFKA"],
                    "enable.idempotence": True,
                    "acks": "all",
                    "linger.ms": 5,
                    "compression.type": "lz4",
                }
            )
        future: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

        def report(error: Any, message: Any) -> None:
            self._waiting -= 1
            if error is None:
                future.set_result((message.partition(), message.offset()))
            else:
                future.set_exception(RuntimeError(error.str()))

        self._client.produce(_TOPIC, value, key, headers=headers, on_delivery=report)
        self._waiting += 1
        if self._waiting == 1:
            self._tick()
        return await future

    def _tick(self) -> None:
        if self._client is not None:
            self._client.poll(0)
        if self._waiting:
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)


_log = Log()


async def _status(event_id: bytes, stamp: bytes, signatures: bytes, body: bytes) -> int:
    if not is_authentic(_SECRET, event_id, stamp, signatures, body):
        return 401
    await _log.put(event_id, body)
    return 202


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer over ASGI."""
    if scope["type"] != "http":
        return
    headers = dict(scope["headers"])
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    signed = (headers[b"webhook-id"], headers[b"webhook-timestamp"], headers[b"webhook-signature"])
    status = await _status(*signed, b"".join(parts))
    await send({"type": "http.response.start", "status": status, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


async def rsgi(scope: Any, protocol: Any) -> None:
    """Answer over RSGI."""
    body, get = await protocol(), scope.headers.get
    signed = [get(f"webhook-{name}").encode() for name in ("id", "timestamp", "signature")]
    status = await _status(signed[0], signed[1], signed[2], body)
    protocol.response_bytes(status, [("content-type", "application/json")], _ANSWER)


class Protocol(asyncio.Protocol):
    """Answer over a transport."""

    def __init__(self) -> None:
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._transport: Any = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """Answer."""
        headers, parts, self._headers, self._parts = self._headers, self._parts, {}, []
        task = asyncio.get_running_loop().create_task(self._answer(headers, b"".join(parts)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, headers: dict[bytes, bytes], body: bytes) -> None:
        signed = (headers[b"webhook-id"], headers[b"webhook-timestamp"], headers[b"webhook-signature"])
        status = await _status(*signed, body)
        if not self._transport.is_closing():
            self._transport.write(_HEAD % status + _ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(int(sys.argv[1])))
