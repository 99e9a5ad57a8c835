"""The own client keeps the protocol."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from streams.providers.base import Arrivals, Waiter
from streams.providers.transport import lean, request
from streams.providers.transport.base import BrokenOff, Headers, Limits, Response, TimedOut, Unsendable
from streams.providers.transport.connection import Connection, Stream
from streams.providers.transport.lean import Lean
from tests.suites.transport import OK, Address, Handler, Server, TransportSuite, Wire, always, serving
from tests.support import eventually_async


class TestLean(TransportSuite):
    """Lean."""

    kind = Lean

    @staticmethod
    def resolve(patch: pytest.MonkeyPatch, addresses: Sequence[Address]) -> None:
        async def found(*_: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

        patch.setattr(request, "_look_up", found)


class _Owner:
    def answered(self, waiter: Waiter, answer: Response) -> None:
        """Give the answer at once."""
        waiter.set_result(answer)

    def freed(self, connection: Connection) -> None:
        """Keep it."""

    def lost(self, connection: Connection) -> None:
        """Forget it."""


async def test_a_connection_that_the_loop_has_not_seen_close_is_not_written_to() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    _, connection = await loop.create_connection(lambda: Connection(_Owner(), Limits()), sock=ours)
    connection.is_reused = True
    theirs.close()
    waiter: asyncio.Future[Response | Stream] = loop.create_future()
    connection.begin(b"POST / HTTP/1.1\r\n\r\n", loop.time() + 1, waiter, is_streamed=False)
    connection.send()

    with pytest.raises(BrokenOff) as caught:
        await waiter
    assert not caught.value.possibly_billed


async def test_a_call_that_ended_before_its_request_was_written_sends_nothing() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setblocking(False)
        _, connection = await loop.create_connection(lambda: Connection(_Owner(), Limits()), sock=ours)
        waiter: asyncio.Future[Response | Stream] = loop.create_future()
        connection.begin(b"POST / HTTP/1.1\r\n\r\n", loop.time() + 1, waiter, is_streamed=False)
        connection.expire("late")
        connection.send()

        with pytest.raises(TimedOut) as caught:
            await waiter
        assert not caught.value.possibly_billed
        assert await loop.sock_recv(theirs, 100) == b""


async def test_what_the_server_says_before_the_question_is_no_answer_to_it() -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        _, connection = await loop.create_connection(lambda: Connection(_Owner(), Limits()), sock=ours)
        connection.is_reused = True
        waiter: asyncio.Future[Response | Stream] = loop.create_future()
        connection.begin(b"POST / HTTP/1.1\r\n\r\n", loop.time() + 1, waiter, is_streamed=False)
        # As the loop does it when the bytes came in the turn in which the call began.
        connection.data_received(OK)
        connection.send()

        with pytest.raises(BrokenOff) as caught:
            await waiter
    assert not caught.value.possibly_billed
    assert connection.is_lost


async def test_a_call_that_is_cut_with_its_answer_there_leaves_the_connection_to_the_next_one() -> None:
    class Busy(Lean):
        """Cuts the first call off when its answer has come, and at once makes another one."""

        def freed(self, connection: Connection) -> None:
            super().freed(connection)
            if not taken:
                first.cancel()
                second.send(None)
                taken.append(connection)

    taken: list[Connection] = []
    async with serving(always(OK)) as server:
        transport = Busy(f"http://127.0.0.1:{server.port}", {}, 1)
        await transport.start()
        second = transport.post("/x", b"{}", {}, 5.0)
        first = asyncio.ensure_future(transport.post("/x", b"{}", {}, 5.0))
        await asyncio.wait([first], timeout=5.0)

        assert first.cancelled()
        assert not taken[0].is_lost, "the second call would wait for an answer that never comes"
        await transport.aclose()
        second.close()


async def test_answers_to_many_calls_in_flight_are_given_together_and_to_few_at_once() -> None:
    answers = asyncio.Semaphore(0)

    async def answer(wire: Wire) -> None:
        while True:
            await wire.request()
            await answers.acquire()
            await wire.send(OK)

    async with serving(answer) as server:
        client = Lean(f"http://127.0.0.1:{server.port}", {}, 2 * lean._MANY)
        await client.start()
        try:
            for number, is_many in ((lean._MANY - 1, False), (lean._MANY, True)):
                calls = [asyncio.ensure_future(client.post("/", b"", {}, 20)) for _ in range(number)]
                gathered = 0
                await eventually_async(lambda: len(client._busy) == number)  # noqa: B023 - awaited here
                answers.release()
                async with asyncio.timeout(10):
                    while not any(call.done() for call in calls):
                        gathered = max(gathered, len(client._answers))
                        await asyncio.sleep(0)
                assert (gathered > 0) is is_many
                for _ in calls[1:]:
                    answers.release()
                async with asyncio.timeout(10):
                    assert {call.status for call in await asyncio.gather(*calls)} == {200}
        finally:
            await client.aclose()


async def test_few_answers_are_given_in_one_turn_of_the_loop_and_all_in_the_next_ones() -> None:
    client = Lean("http://127.0.0.1:1", {}, 1000)
    await client.start()
    client._busy = set(range(lean._MANY))  # type: ignore[arg-type]
    waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(3 * lean._AT_ONCE)]
    for waiter in waiters:
        client.answered(waiter, Response(200, Headers({}), b""))
    given, most = 0, 0
    async with asyncio.timeout(10):
        while given < len(waiters):
            await asyncio.sleep(0)
            now = sum(waiter.done() for waiter in waiters)
            given, most = now, max(most, now - given)
    client._busy = set()
    await client.aclose()

    assert most == lean._AT_ONCE


async def test_an_answer_that_has_come_is_given_when_the_client_closes() -> None:
    client = Lean("http://127.0.0.1:1", {}, 100)
    await client.start()
    client._busy = set(range(lean._MANY))  # type: ignore[arg-type]
    waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(3 + lean._AT_ONCE)]
    for waiter in waiters:
        client.answered(waiter, Response(200, Headers({}), b""))
    waiters[1].cancel()
    assert not waiters[0].done()
    client._busy = set()
    await client.aclose()

    assert [waiter.cancelled() for waiter in waiters[:3]] == [False, True, False]
    assert all(waiter.done() for waiter in waiters)


class _Pool:
    """Connections that are idle, the one used last at the end, and the server's side of them."""

    def __init__(self, server: Server, transport: Lean, wires: list[Wire]) -> None:
        self.server, self.transport, self._wires = server, transport, wires

    def end(self, *numbers: int) -> None:
        """End connections as the server does; the kernel knows, the loop does not yet."""
        for number in numbers:
            fileno = self._wires[number].writer.get_extra_info("socket").fileno()
            # uvloop's own object has no shutdown().
            with socket.socket(fileno=os.dup(fileno)) as end:
                end.shutdown(socket.SHUT_RDWR)

    async def post(self, body: bytes = b"{}") -> Response:
        return await self.transport.post("/x", body, {}, 10.0)


@contextlib.asynccontextmanager
async def _idle(number: int, kind: type[Lean] = Lean, cut: Handler | None = None) -> AsyncIterator[_Pool]:
    """Give a pool of idle connections; `cut` serves the second call of the last of them, which is the first used."""
    wires: list[Wire] = []
    turns = [asyncio.Event() for _ in range(number)]

    async def handle(wire: Wire) -> None:
        wires.append(wire)
        await wire.request()
        if wire.number <= number:
            await turns[wire.number - 1].wait()
        await wire.send(OK)
        await (cut if cut is not None and wire.number == number else always(OK))(wire)

    async with serving(handle) as server:
        transport = kind(f"http://127.0.0.1:{server.port}", {}, number)
        await transport.start()
        pool = _Pool(server, transport, wires)
        calls = [asyncio.ensure_future(pool.post()) for _ in range(number)]
        # The connections come in any order: they are freed in the order in which they were accepted.
        for number_freed, turn in enumerate(turns, 1):
            turn.set()
            while sum(call.done() for call in calls) < number_freed:
                await asyncio.wait([call for call in calls if not call.done()], return_when=asyncio.FIRST_COMPLETED)
        yield pool
        await transport.aclose()


async def test_connections_that_died_together_do_not_cost_a_call_a_handshake_while_another_one_lives() -> None:
    async with _idle(4) as pool:
        pool.end(1, 2, 3)
        answers = [await pool.post(), await pool.post()]

        assert [answer.body for answer in answers] == [b"ok", b"ok"]
        assert pool.server.connections == 4


async def test_a_call_looks_at_dead_connections_once_and_takes_a_fresh_one() -> None:
    async with _idle(4) as pool:
        pool.end(0, 1, 2, 3)

        assert (await pool.post()).body == b"ok"
        assert pool.server.connections == 5


async def test_the_second_idle_connection_that_dies_under_a_call_is_the_last_one() -> None:
    class Unlucky(Lean):
        """Loses what it has just looked at, before it is written to."""

        def _take_live(self) -> Connection | None:
            looked.append(connection := super()._take_live())
            pool.end(2)
            return connection

    looked: list[Connection | None] = []
    async with _idle(4, Unlucky) as pool:
        pool.end(3)

        assert (await pool.post()).body == b"ok"
        assert (len(looked), pool.server.connections) == (1, 5)


async def test_a_request_that_was_cut_off_half_sent_goes_to_a_fresh_connection() -> None:
    async def half_read(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.transport.abort()

    async with _idle(2, cut=half_read) as pool:
        # More than the buffers of both ends hold.
        await pool.post(b"x" * 30_000_000)

        assert pool.server.connections == 3


async def test_who_hands_out_calls_hears_of_answers_before_these_are_given_and_once_for_several() -> None:
    arrivals, told = Arrivals(), list[tuple[int, int]]()
    client = Lean("http://127.0.0.1:1", {}, 1000, arrivals=arrivals)
    await client.start()
    client._busy = set(range(lean._MANY))  # type: ignore[arg-type]
    waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    arrivals.listeners.append(lambda: told.append((arrivals.count, sum(waiter.done() for waiter in waiters))))
    for waiter in waiters:
        client.answered(waiter, Response(200, Headers({}), b""))
    async with asyncio.timeout(10):
        await asyncio.gather(*waiters)
    client._busy = set()
    await client.aclose()

    assert told == [(3, 0)]
    assert arrivals.count == 0


@pytest.mark.parametrize("many", [1, 2])
async def test_requests_are_written_before_the_next_turn_when_somebody_asks_and_many_calls_are_in_flight(
    monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(lean, "_MANY", many)
    arrivals = Arrivals()
    async with serving(always(OK)) as server:
        client = Lean(f"http://127.0.0.1:{server.port}", {}, 10, arrivals=arrivals)
        await client.start()
        await client.post("/", b"", {}, 10.0)
        call = asyncio.ensure_future(client.post("/", b"", {}, 10.0))
        await asyncio.sleep(0)
        (connection,) = client._busy
        has_sent = [connection.has_sent]
        arrivals.send()
        has_sent.append(connection.has_sent)

        assert has_sent == [False, many == 1]
        assert (await call).body == b"ok"

        await client.aclose()


async def test_a_call_that_is_cancelled_while_its_answer_waits_does_not_count_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lean, "_MANY", 1)
    monkeypatch.setattr(lean, "_GATHER_S", 60.0)
    arrivals = Arrivals()
    async with serving(always(OK)) as server:
        client = Lean(f"http://127.0.0.1:{server.port}", {}, 10, arrivals=arrivals)
        await client.start()
        cancelled, other = (asyncio.ensure_future(client.post("/", b"", {}, 10.0)) for _ in range(2))
        await eventually_async(lambda: arrivals.count == 2)
        cancelled.cancel()
        await asyncio.wait([cancelled])

        assert arrivals.count == 1, "its slot is free now"

        await client.aclose()

        assert (await other).body == b"ok"
        assert arrivals.count == 0


async def test_a_refusal_is_given_at_once_however_many_calls_are_in_flight() -> None:
    arrivals = Arrivals()
    client = Lean("http://127.0.0.1:1", {}, 1000, arrivals=arrivals)
    await client.start()
    client._busy = set(range(lean._MANY))  # type: ignore[arg-type]
    waiters: list[asyncio.Future[Any]] = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for waiter, status in zip(waiters, (429, 200), strict=True):
        client.answered(waiter, Response(status, Headers({}), b""))

    assert [waiter.done() for waiter in waiters] == [True, False]
    assert arrivals.count == 1

    client._busy = set()
    await client.aclose()


class _WithoutTask(Lean):
    """Makes a call without a task where there is a connection, and anew if it was not made."""

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Response:
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        if self.begin(path, body, headers, timeout_s, waiter):
            try:
                return await waiter
            except BrokenOff as error:
                if error.possibly_billed:
                    raise
        return await super().post(path, body, headers, timeout_s)


class TestWithoutTask(TestLean):
    """Lean, with calls that need no task."""

    kind = _WithoutTask


async def test_without_a_task_a_call_is_given_up_at_its_time_limit() -> None:
    async def silent(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)
        await wire.request()
        await asyncio.Event().wait()

    async with serving(silent) as server:
        client = Lean(f"http://127.0.0.1:{server.port}", {}, 10)
        await client.start()
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        assert not client.begin("/x", b"{}", {}, 5.0, waiter)
        await client.post("/x", b"{}", {}, 5.0)
        with pytest.raises(Unsendable):
            client.begin("/x", b"{}", {"X-Id": "a\r\nb"}, 5.0, waiter)
        # Which has not cost the connection.
        assert client.begin("/x", b"{}", {}, 1.0, waiter)

        with pytest.raises(TimedOut) as caught:
            await waiter
        assert caught.value.possibly_billed
        await client.aclose()
        assert not client.begin("/x", b"{}", {}, 5.0, waiter)
