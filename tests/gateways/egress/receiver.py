"""A receiver of callbacks on loopback that misbehaves on command; raw sockets, because no HTTP server would do that."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Request:
    """What arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Listens on an address of loopback.

    Attributes:
        answer: what every request is answered with; None answers nothing.
        repeat: bytes sent for ever behind the answer.
        requests: everything that arrived.
        connections: how many were accepted.
        pause_s: between two of them.
        greeting: sent as soon as somebody connects.
        cuts: whether connections are cut once the request is in.
    """

    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    answer: bytes | None = OK
    repeat: bytes = b""
    cuts: bool = False
    pause_s: float = 0.0
    greeting: bytes = b""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    @property
    def is_listening(self) -> bool:
        """Tell whether it listens."""
        return self._server is not None

    @property
    def open_connections(self) -> int:
        """Return how many connections are open."""
        return len(self._writers)

    async def stop(self) -> None:
        """Stop listening, and cut every connection."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None
        # Handlers of aborted connections end within a few turns of the loop.
        for _ in range(5):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        writer.write(self.greeting)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                async for request in _requests(reader):
                    self.requests.append(request)
                    if self.cuts:
                        return
                    await self._reply(writer)
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _reply(self, writer: asyncio.StreamWriter) -> None:
        if self.answer is None:
            await asyncio.Event().wait()
        writer.write(self.answer or b"")
        await writer.drain()
        while self.repeat:
            writer.write(self.repeat)
            await writer.drain()
            await asyncio.sleep(self.pause_s)


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[Request]:
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rows = head.rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        yield Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def status(code: int, *headers: str) -> bytes:
    """Return an empty answer."""
    lines = [f"HTTP/1.1 {code} X", "Content-Length: 0", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
