"""A reverse proxy on the test's event loop that passes requests on to an emulator, or fails them as a service would."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

_HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "trailer", "upgrade"})


@dataclass
class Fault:
    """What is answered in place of the emulator: an error, a cut connection, or nothing at all.

    Attributes:
        status: 0 = the connection is cut; -1 = no answer.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Front:
    """The proxy; `url` is what a client is pointed at.

    Args:
        upstream: the emulator's URL.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._released = asyncio.Event()
        self._port = 0
        self.fault: Fault | None = None
        self.judge: Callable[[bytes], Fault | None] = lambda _body: None
        self.edit: Callable[[bytes], bytes] | None = None
        self.calls = 0

    @property
    def url(self) -> str:
        """Return the address."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen, on the same port as before when it was stopped."""
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening: connections are refused."""
        self._released.set()
        if self._runner is not None and self._session is not None:
            await self._runner.cleanup()
            await self._session.close()
        self._runner = self._session = None
        self._released = asyncio.Event()

    @property
    def is_up(self) -> bool:
        """Tell whether it listens."""
        return self._runner is not None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        body = await request.read()
        fault = self.fault or self.judge(body)
        if fault is None:
            return await self._pass_on(request, body)
        if fault.status > 0:
            return web.Response(status=fault.status, body=fault.body, headers=fault.headers)
        if fault.status < 0:
            await self._released.wait()
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _HOP_HEADERS}
        async with self._session.request(
            request.method, f"{self._upstream}{request.raw_path}", data=body, headers=headers, allow_redirects=False
        ) as answer:
            content = await answer.read()
            kept = {name: text for name, text in answer.headers.items() if name.lower() not in _HOP_HEADERS}
            if self.edit is not None:
                content = self.edit(content)
            return web.Response(status=answer.status, body=content, headers=kept)
