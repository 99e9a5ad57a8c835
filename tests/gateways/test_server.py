"""Real sockets: what the HTTP server and the application do together with raw bytes."""

import asyncio
import contextlib
import hashlib
import hmac
import resource
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from gateways.listening import listen
from gateways.server import Room, Server, room_for, serve
from tests.gateways.driver import SECRET, Gateway
from tests.support import eventually_async

BODY = b'{"repository":{"full_name":"a/b"}}'
HEADER_TIMEOUT_S = 0.5


class Raw:
    """Speaks bytes to a server."""

    def __init__(self, port: int, gateway: Gateway) -> None:
        self.port = port
        self.gateway = gateway

    async def send(self, *pieces: bytes, wait_s: float = 3.0, has_eof: bool = False) -> bytes:
        """Send pieces, and return everything until the server closes, or what came when the time is up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        received = bytearray()
        try:
            for piece in pieces:
                writer.write(piece)
                with contextlib.suppress(ConnectionError):
                    await writer.drain()
            if has_eof:
                writer.write_eof()
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(wait_s):
                    while chunk := await reader.read(65536):
                        received += chunk
                    received += b"<closed>"
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return bytes(received)


@pytest.fixture
async def raw(gateway: Gateway) -> AsyncIterator[Raw]:
    """A gateway behind a real listener."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(Server(gateway.api, listener, HEADER_TIMEOUT_S), stop))
    yield Raw(port, gateway)
    stop.set()
    async with asyncio.timeout(5):
        await serving


def webhook(*more: bytes, body: bytes = BODY, length: int | None = None) -> bytes:
    """Return the head of a signed webhook."""
    signature = hmac.new(SECRET, body, hashlib.sha256).hexdigest().encode()
    lines: Sequence[bytes] = (
        b"POST /webhooks/github HTTP/1.1",
        b"Host: gateway",
        b"X-Hub-Signature-256: sha256=" + signature,
        b"X-GitHub-Event: push",
        b"X-GitHub-Delivery: 1",
        *((b"Content-Length: %d" % (len(body) if length is None else length),) if length != -1 else ()),
        *more,
    )
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def test_a_signed_webhook_gets_its_202(raw: Raw) -> None:
    answer = await raw.send(webhook(b"Connection: close"), BODY)

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert raw.gateway.records[0].value == BODY


async def test_a_chunked_body_is_put_together(raw: Raw) -> None:
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, BODY[:5], len(BODY) - 5, BODY[5:])

    answer = await raw.send(webhook(b"Transfer-Encoding: chunked", b"Connection: close", length=-1), chunks)

    assert answer.startswith(b"HTTP/1.1 202 ")
    assert raw.gateway.records[0].value == BODY


@pytest.mark.parametrize("more", [(), (b"Expect: 100-continue",)])
async def test_a_declared_length_above_the_cap_is_413_without_100_and_closed(raw: Raw, more: tuple[bytes, ...]) -> None:
    answer = await raw.send(webhook(*more, length=10_000_000))

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    assert answer.endswith(b"<closed>")


async def test_expect_is_answered_with_100_when_the_body_is_wanted(raw: Raw) -> None:
    answer = await raw.send(webhook(b"Expect: 100-continue", b"Connection: close"), BODY)

    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")


async def test_a_chunked_body_above_the_cap_is_413_and_closed(raw: Raw) -> None:
    answer = await raw.send(webhook(b"Transfer-Encoding: chunked", length=-1), b"1000\r\n" + b"x" * 0x1000 + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"<closed>")


async def test_a_slow_body_is_408_and_closed(raw: Raw) -> None:
    answer = await raw.send(webhook(), BODY[:3])

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"<closed>")


async def test_a_body_cut_short_is_never_202(raw: Raw) -> None:
    answer = await raw.send(webhook(length=len(BODY) + 3), BODY, has_eof=True)

    assert b" 202 " not in answer
    assert b" 500 " not in answer
    assert raw.gateway.records == []


@pytest.mark.parametrize("sent", [b"", b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\n"])
async def test_a_connection_without_headers_is_closed_at_the_deadline(raw: Raw, sent: bytes) -> None:
    started_s = time.monotonic()

    answer = await raw.send(sent)

    assert answer == b"<closed>"
    assert HEADER_TIMEOUT_S * 0.8 <= time.monotonic() - started_s < 3


MALFORMED = {
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4",
    "length with a sign": b"Content-Length: +3",
    "unknown transfer encoding": b"Transfer-Encoding: xchunked",
    "folded line": b"X: a\r\n b\r\nContent-Length: 0",
    "space before the colon": b"X : a\r\nContent-Length: 0",
    "NUL": b"X: a\0b\r\nContent-Length: 0",
    "two hosts": b"Host: other\r\nContent-Length: 0",
}


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_headers_are_400_and_closed(raw: Raw, lines: bytes) -> None:
    answer = await raw.send(b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\nabc")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"<closed>")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["no host", "unknown version", "TLS"],
)
async def test_other_protocols_are_400_and_closed(raw: Raw, sent: bytes) -> None:
    answer = await raw.send(sent)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"<closed>")


async def test_http_1_0_needs_no_host(raw: Raw) -> None:
    assert (await raw.send(b"GET /healthz HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200 ")


async def test_a_bad_chunk_size_is_400_and_closed(raw: Raw) -> None:
    answer = await raw.send(webhook(b"Transfer-Encoding: chunked", length=-1), b"zz\r\nabc\r\n0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"<closed>")


async def test_both_length_and_chunks_are_read_as_chunks_and_the_connection_is_closed(raw: Raw) -> None:
    # A smuggled second request behind the body would be read from a connection that goes on.
    chunk = b"%x\r\n%b\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" % (len(BODY), BODY)

    answer = await raw.send(webhook(b"Transfer-Encoding: chunked", length=3), chunk)

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"<closed>")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 5000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 300_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"u" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"4"),
    ],
    ids=["5,000 headers", "a large header", "a large URL"],
)
async def test_large_heads_are_refused(raw: Raw, sent: bytes, status: bytes) -> None:
    assert (await raw.send(sent)).startswith(b"HTTP/1.1 " + status)


async def test_requests_follow_each_other_on_one_connection(raw: Raw) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"

    answer = await raw.send(get + b"\r\n" + get + b"Connection: close\r\n\r\n")

    assert answer.count(b"HTTP/1.1 200 ") == 2


async def test_an_open_request_is_finished_after_the_door_is_closed(gateway: Gateway) -> None:
    listener = listen("127.0.0.1", 0)
    raw, stop = Raw(listener.getsockname()[1], gateway), asyncio.Event()
    serving = asyncio.ensure_future(serve(Server(gateway.api, listener, HEADER_TIMEOUT_S), stop))
    reader, writer = await asyncio.open_connection("127.0.0.1", raw.port)
    writer.write(webhook())
    await eventually_async(lambda: gateway.api.in_progress)

    stop.set()
    writer.write(BODY)

    assert (await reader.read(65536)).startswith(b"HTTP/1.1 202 ")
    writer.close()
    async with asyncio.timeout(5):
        await serving


@pytest.mark.parametrize(
    ("soft", "hard", "room", "raised_to"),
    [
        (256, resource.RLIM_INFINITY, Room(4096, 1000), 5352),
        (256, 10_000, Room(4096, 1000), 5352),
        (8192, 8192, Room(4096, 1000), None),
        (256, 1024, Room(618, 150), 1024),
        (200, 200, Room(16, 1), 200),
    ],
)
def test_connections_and_websockets_share_the_files_that_there_are(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, room: Room, raised_to: int | None
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))

    assert room_for(Room(4096, 1000)) == room
    assert raised == ([] if raised_to is None else [(raised_to, hard)])
