"""Sends attempts over raw sockets: kept connections where the framing is whole, one each where it is not."""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from typing import cast

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: ?(\d+)")
# A well-framed request is answered well before: a broker's ack takes milliseconds here.
LIMIT_S = 15.0
# Behind bytes of unknown framing: how long an answer may take before the sender ends its side.
_PATIENCE_S = 0.1
_FAREWELL_S = 3.0


class Connection(asyncio.Protocol):
    """One connection.

    Attributes:
        statuses: of the answers since the last request.
        repeated: ids of events that the gateway says it had before.
        is_lost: the server has closed it, or has said that it will.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.repeated: list[str] = []
        self.is_lost = False
        self._buffer = b""
        self._wanted = 0
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by their methods only.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            status = int(head[9:12])
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._buffer) < whole:
                return
            if b"\r\npenstock-duplicate: true" in head:
                self.repeated.append(json.loads(self._buffer[end + 4 : whole])["id"])
            self._buffer = self._buffer[whole:]
            if b"\r\nconnection: close" in head:
                self.is_lost = True
            if status != 100:
                self.statuses.append(status)
        if len(self.statuses) >= self._wanted or (self.is_lost and self.statuses):
            self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_lost = True
        self._end()

    def _end(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def exchange(self, sent: bytes, wanted: int, limit_s: float) -> bool:
        """Send; return whether the answers, or the end of the connection, came in time."""
        assert self._transport is not None
        self.statuses, self.repeated, self._wanted = [], [], wanted
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(sent)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._done
        return self._done.done()

    async def leave(self) -> None:
        """End our side and wait for the server's."""
        assert self._transport is not None
        if not self._transport.is_closing():
            self._done, self._wanted = asyncio.get_running_loop().create_future(), 10**9
            with contextlib.suppress(OSError, RuntimeError):
                self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._done
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Client:
    """One sender that attempts one thing after the other, each connection from another address.

    Args:
        port: of the gateway.
        addresses: to send from; only Linux lets anybody use all of 127/8.

    Attributes:
        repeated: ids of events that the gateway said it had before; whoever reads them empties it.
    """

    def __init__(self, port: int, addresses: Iterator[str]) -> None:
        self._port = port
        self._addresses = addresses
        self._kept: Connection | None = None
        self.repeated: list[str] = []

    async def well_framed(self, sent: bytes, requests: int) -> tuple[list[int], bool]:
        """Return the statuses that came, and whether everything came in time."""
        if self._kept is not None and self._kept.is_lost:
            self.close()
            self._kept = None
        if self._kept is None:
            self._kept = await self._connect()
        connection = self._kept
        in_time = await connection.exchange(sent, requests, LIMIT_S)
        self.repeated += connection.repeated
        if len(connection.statuses) < requests:
            connection.close()
            self._kept = None
        return connection.statuses, in_time

    async def of_any_framing(self, sent: bytes) -> tuple[list[int], bool]:
        """Return the statuses that came, and whether the server let go of the connection."""
        connection = await self._connect()
        is_over = await connection.exchange(sent, 1, _PATIENCE_S)
        if is_over:
            connection.close()
        else:
            await connection.leave()
        self.repeated += connection.repeated
        return connection.statuses, is_over or connection.is_lost

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            Connection, "127.0.0.1", self._port, local_addr=(next(self._addresses), 0)
        )
        return connection

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
