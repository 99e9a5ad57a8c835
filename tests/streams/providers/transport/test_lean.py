"""The own client keeps the protocol."""

import asyncio
import socket

import pytest

from streams.providers.transport import lean
from streams.providers.transport.base import BrokenOff, Headers, Limits, Response, TimedOut
from streams.providers.transport.connection import Connection, Stream, Waiter
from streams.providers.transport.lean import Lean
from tests.suites.transport import OK, TransportSuite, Wire, always, serving
from tests.support import eventually_async


class TestLean(TransportSuite):
    """Lean."""

    kind = Lean


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


async def test_an_answer_that_has_come_is_given_when_the_client_closes() -> None:
    client = Lean("http://127.0.0.1:1", {}, 100)
    await client.start()
    client._busy = set(range(lean._MANY))  # type: ignore[arg-type]
    waiters: list[Waiter] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for waiter in waiters:
        client.answered(waiter, Response(200, Headers({}), b""))
    waiters[1].cancel()
    assert not waiters[0].done()
    client._busy = set()
    await client.aclose()

    assert [waiter.cancelled() for waiter in waiters] == [False, True, False]
