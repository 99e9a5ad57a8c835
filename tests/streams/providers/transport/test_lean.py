"""The own client keeps the protocol."""

import asyncio
import socket

import pytest

from streams.providers.transport.base import BrokenOff, Limits, Response, TimedOut
from streams.providers.transport.connection import Connection, Stream
from streams.providers.transport.lean import Lean
from tests.suites.transport import TransportSuite


class TestLean(TransportSuite):
    """Lean."""

    kind = Lean


class _Owner:
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
