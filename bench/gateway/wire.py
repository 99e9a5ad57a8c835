"""Signed webhooks and a lean client: requests rendered beforehand, connections that are kept, answers barely parsed.

HTTP libraries cost several times what the gateways under test cost, and would be what is measured.
"""

import asyncio
import base64
import hmac
import random
import re
import time
from collections.abc import Callable
from typing import Any

PATH = "/webhooks/bench"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_BODIES = 64
_WORDS = ("order", "invoice", "customer", "ticket", "payment", "refund", "shipment", "priority", "amount", "status")

# Status, head of the answer, seconds it took.
OnAnswer = Callable[[bytes, bytes, float], None]


def bodies(size_bytes: int, seed: int) -> list[bytes]:
    """Return JSON documents of that size that compress as text does."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    found = []
    for number in range(_BODIES):
        words = [f"{chance.choice(_WORDS)}{chance.randrange(1000)}" for _ in range(size_bytes // 4)]
        head = f'{{"type":"order.created","n":{number},"text":"'
        found.append((head + " ".join(words))[: size_bytes - 2].encode() + b'"}')
    return found


def signed_head(secret: bytes, event_id: bytes, body: bytes, stamp: bytes) -> bytes:
    """Return the head of a request, signed as Standard Webhooks 1.0 says."""
    signature = base64.b64encode(hmac.digest(secret, b"%b.%b.%b" % (event_id, stamp, body), "sha256"))
    return (
        b"POST %b HTTP/1.1\r\nhost: gateway.example\r\nuser-agent: Bench-Webhooks/1.0\r\naccept: */*\r\n"
        b"content-type: application/json\r\nwebhook-id: %b\r\nwebhook-timestamp: %b\r\nwebhook-signature: v1,%b\r\n"
        b"content-length: %d\r\n\r\n" % (PATH.encode(), event_id, stamp, signature, len(body))
    )


def rendered(secret: str, size_bytes: int, count: int, seed: int) -> list[tuple[bytes, bytes]]:
    """Return requests as head and body, each with an id of its own and so with a signature of its own."""
    key, found = base64.b64decode(secret), bodies(size_bytes, seed)
    stamp, name = str(int(time.time())).encode(), f"msg_{time.time_ns():x}_"
    requests = []
    for number in range(count):
        body = found[number % len(found)]
        requests.append((signed_head(key, f"{name}{number:x}".encode(), body, stamp), body))
    return requests


class Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Args:
        on_answer: gets every answer; status b"lost" when the connection ended before.

    Attributes:
        is_open: False once it has ended.
    """

    def __init__(self, on_answer: OnAnswer) -> None:
        self.on_answer = on_answer
        self.is_open = False
        self._data = b""
        self._is_waiting = False
        self._transport: Any = None
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport
        self.is_open = True

    def send(self, request: tuple[bytes, bytes]) -> None:
        """Send a request."""
        self._is_waiting = True
        self._sent_s = time.perf_counter()
        self._transport.writelines(request)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        data = self._data = self._data + data if self._data else data
        end = data.find(_HEAD_END)
        length = _LENGTH.search(data, 0, end) if end >= 0 else None
        if length is None or len(data) < end + len(_HEAD_END) + int(length[1]):
            return
        self._data = b""
        self._is_waiting = False
        self.on_answer(data[9:12], data[:end], time.perf_counter() - self._sent_s)

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell who waits."""
        self.is_open = False
        if self._is_waiting:
            self._is_waiting = False
            self.on_answer(b"lost", b"", time.perf_counter() - self._sent_s)

    def close(self) -> None:
        """End it; nobody is told."""
        self._is_waiting = False
        if self._transport is not None:
            self._transport.abort()


async def connect(port: int, on_answer: OnAnswer) -> Connection:
    """Return an open connection.

    Raises:
        OSError: nobody listens.
    """
    _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(on_answer), "127.0.0.1", port)
    return connection
