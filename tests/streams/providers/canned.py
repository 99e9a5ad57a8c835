"""An HTTP server that answers every POST with the same canned answer and remembers what it was asked."""

import json
from typing import Any, Self

from aiohttp import web


class Canned:
    """Listens on a free port of 127.0.0.1 while the context is open.

    Attributes:
        requests: headers and JSON bodies as they came.
    """

    def __init__(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._status = status
        self._headers = headers or {"Content-Type": "application/json"}
        self.requests: list[tuple[dict[str, str], Any]] = []
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.02)
        self.port = 0

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), json.loads(await request.read())))
        return web.Response(body=self._body, status=self._status, headers=self._headers)

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop listening."""
        await self._runner.cleanup()
