"""Conformance suite of transports: what streams/providers/transport/base.py promises, against raw loopback servers.

A transport's test file inherits TransportSuite and names its class.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from streams.providers.sse import EventSplitter
from streams.providers.transport.base import (
    BrokenOff,
    ConnectFailed,
    Limits,
    Response,
    TimedOut,
    Transport,
    TransportError,
    Unsendable,
    Unusable,
)
from tests.support import eventually_async, free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: a\r\n\r\nok"
LIMITS = Limits(head_bytes=8192, body_bytes=1000, refusal_bytes=10)
Handler = Callable[["Wire"], Awaitable[None]]
Address = tuple[str, int]


class Wire:
    """One accepted connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader, self.writer, self.number = reader, writer, number

    async def request(self) -> tuple[bytes, bytes]:
        """Return head and body of the next request."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head, await self.reader.readexactly(int(length.partition(b":")[2]))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Server:
    """Runs a handler for each connection; counts connections and requests."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.connections = self.requests = self.gone = 0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._handler(Wire(reader, writer, self.connections))
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            self.gone += 1
            self._tasks.discard(task)

    async def end(self) -> None:
        """End what is left of the connections."""
        for task in list(self._tasks):
            task.cancel()
        await eventually_async(lambda: not self._tasks)


@contextlib.asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(handler)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls, backlog=2048)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.end()


def always(answer: bytes, *, closes: bool = False, pieces: bool = False) -> Handler:
    """Answer every request with the same bytes, byte by byte when `pieces`."""

    async def handle(wire: Wire) -> None:
        while True:
            await wire.request()
            for part in [answer[i : i + 1] for i in range(len(answer))] if pieces else [answer]:
                await wire.send(part)
                if pieces:
                    await asyncio.sleep(0)
            if closes:
                return

    return handle


async def _status_and_body(transport: Transport, *, streamed: bool) -> tuple[int, bytes]:
    if not streamed:
        answer = await transport.post("/x", b"{}", {}, 5.0)
        return answer.status, answer.body
    async with transport.open("/x", b"{}", {}, 5.0) as reply:
        return reply.status, b"".join([piece async for piece in reply.pieces()])


def _reset_after(answer: bytes) -> Handler:
    """Answer, and reset the connection once the answer has left."""

    async def handle(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer)
        connection = wire.writer.get_extra_info("socket")
        # Closing a socket that has no time to linger sends a reset.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.writer.transport.abort()

    return handle


def _half_closing(answer: bytes) -> Handler:
    """Answer, say that nothing more will come, and keep the connection open until the client closes it."""

    async def handle(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer)
        wire.writer.write_eof()
        await wire.reader.read()

    return handle


def _reached(server: Server, counter: str, number: int) -> bool:
    return bool(getattr(server, counter) == number)


@contextlib.contextmanager
def dead_address() -> Iterator[Address]:
    """Yield an address that neither answers nor refuses: nobody accepts, and the queue of those who wait is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield listener.getsockname()


async def silent(wire: Wire) -> None:
    await wire.request()
    await wire.reader.read()


class TransportSuite:
    """What every transport does."""

    kind: ClassVar[Callable[..., Transport]]

    @staticmethod
    def resolve(patch: pytest.MonkeyPatch, addresses: Sequence[Address]) -> None:
        """Have every name looked up as these IPv4 addresses."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def to(
        self, port: int, scheme: str = "http", host: str = "127.0.0.1", **more: Any
    ) -> AsyncIterator[Transport]:
        settings: dict[str, Any] = {"max_connections": 8, "connect_timeout_s": 2.0, "limits": LIMITS} | more
        transport = type(self).kind(f"{scheme}://{host}:{port}/v1", {"X-Fixed": "f"}, **settings)
        await transport.start()
        try:
            yield transport
        finally:
            await transport.aclose()

    async def ask(self, handler: Handler, timeout_s: float = 5.0) -> Response:
        async with serving(handler) as server, self.to(server.port) as transport:
            return await transport.post("/x", b"{}", {}, timeout_s)

    async def test_a_post_carries_path_headers_and_body(self) -> None:
        seen: list[tuple[bytes, bytes]] = []

        async def handle(wire: Wire) -> None:
            seen.append(await wire.request())
            await wire.send(OK)

        async with serving(handle) as server, self.to(server.port) as transport:
            answer = await transport.post("/x", b'{"a":1}', {"X-Call": "c"}, 5.0)

        assert (answer.status, answer.body, answer.headers.get("x-THING")) == (200, b"ok", "a")
        head, body = seen[0]
        assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert b"X-Fixed: f\r\n" in head
        assert b"X-Call: c\r\n" in head
        assert b"Accept-Encoding: identity\r\n" in head
        assert body == b'{"a":1}'

    async def test_a_connection_is_used_again(self) -> None:
        async with serving(always(OK)) as server, self.to(server.port) as transport:
            for _ in range(5):
                await transport.post("/x", b"{}", {}, 5.0)

        assert server.connections == 1

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\n\r\nok",
        ],
    )
    async def test_a_connection_that_closes_is_not_used_again(self, answer: bytes) -> None:
        async with serving(always(answer, closes=True)) as server, self.to(server.port) as transport:
            bodies = [(await transport.post("/x", b"{}", {}, 5.0)).body for _ in range(3)]

        assert bodies == [b"ok"] * 3
        assert server.connections == 3

    @pytest.mark.parametrize(
        "answer",
        [
            OK,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nTrailer: t\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
        ],
    )
    async def test_an_answer_may_be_split_at_any_byte(self, answer: bytes) -> None:
        assert (await self.ask(always(answer, pieces=True))).body == b"ok"

    async def test_204_has_no_body(self) -> None:
        assert (await self.ask(always(b"HTTP/1.1 204 No Content\r\n\r\n"))).body == b""

    async def test_a_redirect_is_an_answer(self) -> None:
        answer = await self.ask(always(b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"))

        assert (answer.status, answer.headers.get("Location")) == (302, "/y")

    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 9000 + b"\r\nContent-Length: 2\r\n\r\nok",
            # Each of them is short, their sum is above the limit of a head.
            b"HTTP/1.1 200 OK\r\n" + b"X: %s\r\n" % (b"x" * 90) * 100 + b"Content-Length: 2\r\n\r\nok",
        ],
    )
    async def test_what_cannot_be_used_is_refused_and_may_be_billed(self, answer: bytes) -> None:
        with pytest.raises((Unusable, BrokenOff)) as caught:
            await self.ask(always(answer))

        assert caught.value.possibly_billed

    async def test_a_long_refusal_is_cut(self) -> None:
        answer = await self.ask(always(b"HTTP/1.1 500 Oh\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000))

        assert (answer.status, answer.body) == (500, b"x" * 10)

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"])
    async def test_broken_off_may_be_billed_and_is_not_repeated(self, answer: bytes) -> None:
        async with serving(always(answer, closes=True)) as server, self.to(server.port) as transport:
            with pytest.raises(BrokenOff) as caught:
                await transport.post("/x", b"{}", {}, 5.0)

        assert caught.value.possibly_billed
        assert server.connections == 1

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        ],
    )
    async def test_a_half_close_in_an_answer_breaks_it_off(self, answer: bytes, *, streamed: bool) -> None:
        async with serving(_half_closing(answer)) as server, self.to(server.port) as transport:
            with pytest.raises(BrokenOff) as caught:
                await _status_and_body(transport, streamed=streamed)
            await eventually_async(lambda: server.gone == 1)

        assert caught.value.possibly_billed
        assert server.connections == 1

    @pytest.mark.parametrize("streamed", [False, True])
    @pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 200 OK\r\n\r\nok"])
    async def test_a_half_close_after_an_answer_ends_its_connection(self, answer: bytes, *, streamed: bool) -> None:
        async with serving(_half_closing(answer)) as server, self.to(server.port) as transport:
            for number in (1, 2):
                assert await _status_and_body(transport, streamed=streamed) == (200, b"ok")
                await eventually_async(functools.partial(_reached, server, "gone", number))

        assert server.connections == 2

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_reset_is_no_end_of_a_body_without_length_and_may_be_billed(self, *, streamed: bool) -> None:
        answer = b"HTTP/1.1 200 OK\r\n\r\nok"
        async with serving(_reset_after(answer)) as server, self.to(server.port) as transport:
            with pytest.raises(BrokenOff) as caught:
                await _status_and_body(transport, streamed=streamed)

        assert caught.value.possibly_billed

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_a_refusal_that_ends_in_a_reset_is_a_refusal(self, *, streamed: bool) -> None:
        answer = b"HTTP/1.1 413 Too large\r\n\r\nno"
        async with serving(_reset_after(answer)) as server, self.to(server.port) as transport:
            assert await _status_and_body(transport, streamed=streamed) == (413, b"no")

    @pytest.mark.parametrize("says_so", [True, False])
    async def test_the_end_of_tls_is_the_end_of_a_body_without_length(
        self, tls: tuple[ssl.SSLContext, Path], *, says_so: bool
    ) -> None:
        async def answer_and_end(wire: Wire) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\n\r\nok")
            if not says_so:
                # Without the alert that TLS ends with, as many servers.
                wire.writer.transport.abort()

        async with serving(answer_and_end, tls[0]) as server:  # noqa: SIM117 - too long for one line
            async with self.to(server.port, "https", ca_file=tls[1]) as transport:
                answer = await transport.post("/x", b"{}", {}, 5.0)

        assert answer.body == b"ok"

    @pytest.mark.parametrize(
        "answer", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
    )
    async def test_a_reset_behind_a_body_that_is_whole_changes_nothing(self, answer: bytes) -> None:
        assert (await self.ask(_reset_after(answer))).body == b"ok"

    @pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
    @pytest.mark.parametrize("pieces", [False, True])
    async def test_server_sent_events_may_end_their_lines_in_three_ways(self, end: bytes, *, pieces: bool) -> None:
        body = end.join([b"data: one", b"", b": remark", b"data: two", b"data: lines", b"", b""])
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
        async with serving(always(head + body, pieces=pieces)) as server, self.to(server.port) as transport:
            splitter, found = EventSplitter(1000), list[bytes]()
            async with transport.open("/x", b"{}", {}, 5.0) as reply:
                async for piece in reply.pieces():
                    found.extend(splitter.feed(piece))

        assert found == [b"one", b"two\nlines"]

    @pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"])
    async def test_a_timeout_after_the_request_may_be_billed(self, begun: bytes) -> None:
        with pytest.raises(TimedOut) as caught:
            # Long enough for a busy machine to have sent the request by then.
            await self.ask(always(begun), timeout_s=1.0)

        assert caught.value.possibly_billed

    async def test_a_timeout_while_waiting_for_a_connection_is_not_billed(self) -> None:
        async with serving(silent) as server, self.to(server.port, max_connections=1) as transport:
            first = asyncio.ensure_future(transport.post("/x", b"{}", {}, 5.0))
            await eventually_async(lambda: server.connections == 1)
            with pytest.raises(TransportError) as caught:
                await transport.post("/x", b"{}", {}, 0.1)
            first.cancel()
            await asyncio.wait([first])

        assert not caught.value.possibly_billed
        assert server.connections == 1

    async def test_nobody_listening_is_not_billed(self) -> None:
        async with self.to(free_port()) as transport:
            with pytest.raises(ConnectFailed):
                await transport.post("/x", b"{}", {}, 5.0)

    async def test_a_name_that_no_thread_can_look_up_is_no_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def look_up(*_: Any, **__: Any) -> None:
            message = "can't start new thread"
            raise RuntimeError(message)

        if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            pytest.skip("uvloop looks names up in threads of its own")
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        async with self.to(1, host="models.test") as transport:
            with pytest.raises(ConnectFailed, match="can't start new thread"):
                await transport.post("/x", b"{}", {}, 5.0)

    async def test_a_dead_address_of_a_name_does_not_keep_from_the_live_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with dead_address() as dead:
            async with serving(always(OK)) as server, self.to(1, host="models.test") as transport:
                self.resolve(monkeypatch, [dead, ("127.0.0.1", server.port)])
                answer = await transport.post("/x", b"{}", {}, 5.0)

        assert answer.body == b"ok"

    async def test_a_name_none_of_whose_addresses_answers_is_not_billed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with self.to(1, host="models.test") as transport:
            self.resolve(monkeypatch, [("127.0.0.1", free_port()), ("127.0.0.2", free_port())])
            with pytest.raises(ConnectFailed):
                await transport.post("/x", b"{}", {}, 5.0)

    @pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b"])
    async def test_a_header_that_smuggles_is_refused(self, value: str) -> None:
        async with serving(always(OK)) as server, self.to(server.port) as transport:
            with pytest.raises(Unsendable):
                await transport.post("/x", b"{}", {"X-Call": value}, 5.0)

        assert server.connections == 0

    async def test_bytes_nobody_asked_for_close_the_connection(self) -> None:
        async with serving(always(OK + OK)) as server, self.to(server.port) as transport:
            for _ in range(2):
                assert (await transport.post("/x", b"{}", {}, 5.0)).body == b"ok"

        assert server.connections == 2

    async def test_a_connection_closed_while_idle_is_replaced(self) -> None:
        async with serving(always(OK, closes=True)) as server, self.to(server.port) as transport:
            for number in range(1, 4):
                assert (await transport.post("/x", b"{}", {}, 5.0)).body == b"ok"
                await eventually_async(functools.partial(_reached, server, "gone", number))
                await asyncio.sleep(0)

        assert server.connections == 3

    async def test_a_cancelled_call_closes_its_connection_and_frees_its_place(self) -> None:
        async with serving(silent) as server, self.to(server.port, max_connections=1) as transport:
            for number in (1, 2):
                call = asyncio.ensure_future(transport.post("/x", b"{}", {}, 5.0))
                await eventually_async(functools.partial(_reached, server, "connections", number))
                call.cancel()
                await asyncio.wait([call])
                await eventually_async(functools.partial(_reached, server, "gone", number))

                assert call.cancelled()

    async def test_closing_cancels_calls_in_flight(self) -> None:
        async with serving(silent) as server, self.to(server.port) as transport:
            call = asyncio.ensure_future(transport.post("/x", b"{}", {}, 5.0))
            await eventually_async(lambda: server.connections == 1)
            await transport.aclose()
            await asyncio.wait([call], timeout=2.0)

            assert call.cancelled()

    async def test_no_more_connections_than_the_limit(self) -> None:
        async with serving(always(OK)) as server, self.to(server.port, max_connections=3) as transport:
            answers = await asyncio.gather(*(transport.post("/x", b"{}", {}, 10.0) for _ in range(60)))

        assert {answer.body for answer in answers} == {b"ok"}
        assert server.connections <= 3

    async def test_a_large_body_arrives_whole(self) -> None:
        sizes: list[int] = []

        async def handle(wire: Wire) -> None:
            while True:
                sizes.append(len((await wire.request())[1]))
                await wire.send(OK)

        async with serving(handle) as server, self.to(server.port) as transport:
            for _ in range(2):
                await transport.post("/x", b"x" * 3_000_000, {}, 10.0)

        assert sizes == [3_000_000] * 2
        assert server.connections == 1

    async def test_many_calls_are_held_at_once(self) -> None:
        held, release = [], asyncio.Event()

        async def handle(wire: Wire) -> None:
            held.append(await wire.request())
            await release.wait()
            await wire.send(OK)

        # A busy machine takes its time to accept so many.
        patient: dict[str, Any] = {"max_connections": 400, "connect_timeout_s": 20.0}
        async with serving(handle) as server, self.to(server.port, **patient) as transport:
            calls = [asyncio.ensure_future(transport.post("/x", b"{}", {}, 30.0)) for _ in range(400)]
            await eventually_async(lambda: len(held) == 400, within_s=20.0)
            release.set()
            answers = await asyncio.gather(*calls)

        assert len(answers) == 400

    async def test_a_stream_comes_in_pieces(self) -> None:
        proceed = asyncio.Event()

        async def handle(wire: Wire) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await proceed.wait()
            await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")

        got: list[bytes] = []
        async with serving(handle) as server, self.to(server.port) as transport:  # noqa: SIM117 - reads in two steps
            async with transport.open("/x", b"{}", {}, 5.0) as reply:
                async for piece in reply.pieces():
                    got.append(piece)
                    proceed.set()

        assert got == [b"one", b"two"]

    async def test_a_slow_reader_of_a_stream_holds_its_server_up_and_nobody_else(self) -> None:
        body, sent = bytes(range(256)) * 12_000, asyncio.Event()

        async def handle(wire: Wire) -> None:
            if wire.number > 1:
                await always(OK)(wire)
            await wire.request()
            # The kernel would take much of the body off the server's hands, and nobody could say that it waits.
            wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 64_000):
                await wire.send(b"fa00\r\n%s\r\n" % body[start : start + 64_000])
            sent.set()
            await wire.send(b"0\r\n\r\n")

        limits = Limits(body_bytes=len(body))
        async with serving(handle) as server, self.to(server.port, limits=limits) as transport:  # noqa: SIM117 - too long for one line
            async with transport.open("/x", b"{}", {}, 10.0) as reply:
                pieces = reply.pieces()
                got = [await anext(pieces)]
                # Far more turns of the event loop than the body needs to come whole when somebody reads it.
                for _ in range(100):
                    assert (await transport.post("/x", b"{}", {}, 5.0)).body == b"ok"

                assert not sent.is_set()
                got += [piece async for piece in pieces]

        assert sent.is_set()
        assert b"".join(got) == body

    async def test_a_stream_left_early_closes_its_connection(self) -> None:
        async def handle(wire: Wire) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await wire.reader.read()

        async with serving(handle) as server, self.to(server.port) as transport:
            async with transport.open("/x", b"{}", {}, 5.0) as reply:
                assert reply.status == 200
            await eventually_async(lambda: server.gone == 1)

    async def test_a_stream_has_one_total_time(self) -> None:
        async def handle(wire: Wire) -> None:
            await wire.request()
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            await wire.reader.read()

        async with serving(handle) as server, self.to(server.port) as transport:
            with pytest.raises(TimedOut):
                async with transport.open("/x", b"{}", {}, 0.2) as reply:
                    assert [piece async for piece in reply.pieces()] == []

    async def test_tls_with_a_trusted_certificate(self, tls: tuple[ssl.SSLContext, Path]) -> None:
        async with serving(always(OK), tls[0]) as server, self.to(server.port, "https", ca_file=tls[1]) as transport:
            for _ in range(2):
                assert (await transport.post("/x", b"{}", {}, 5.0)).body == b"ok"

            assert server.connections == 1

    async def test_tls_of_an_unknown_authority_is_refused(self, tls: tuple[ssl.SSLContext, Path]) -> None:
        async with serving(always(OK), tls[0]) as server, self.to(server.port, "https") as transport:
            with pytest.raises(ConnectFailed):
                await transport.post("/x", b"{}", {}, 5.0)

    async def test_tls_of_another_host_is_refused(self, tls: tuple[ssl.SSLContext, Path]) -> None:
        async with serving(always(OK), tls[0]) as server:  # noqa: SIM117 - too long for one line
            async with self.to(server.port, "https", host="localhost", ca_file=tls[1]) as transport:
                with pytest.raises(ConnectFailed):
                    await transport.post("/x", b"{}", {}, 5.0)

    async def test_tls_that_has_expired_is_refused(self, expired: tuple[ssl.SSLContext, Path]) -> None:
        async with serving(always(OK), expired[0]) as server:  # noqa: SIM117 - too long for one line
            async with self.to(server.port, "https", ca_file=expired[1]) as transport:
                with pytest.raises(ConnectFailed):
                    await transport.post("/x", b"{}", {}, 5.0)
