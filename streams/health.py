"""The worker's own health page: /healthz, /readyz, /metrics; Faust's always says OK."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from contracts.errors import ConfigError
from contracts.metrics import LOOP_LAG, REGISTRY

_LAG_EVERY_S = 0.5
# A loop this late answers nobody in time; the supervisor's probe would fail as well.
MAX_LOOP_LAG_S = 5.0


class HealthServer:
    """Serves the three pages.

    Args:
        host, port: where to listen; port 0 = any free one.
        problems: what is wrong with the process's life; empty = alive.
        unready: why it cannot work now; empty = ready.
    """

    def __init__(
        self, host: str, port: int, problems: Callable[[], list[str]], unready: Callable[[], list[str]]
    ) -> None:
        self._host = host
        self._port = port
        self._problems = problems
        self._unready = unready
        self._runner: web.AppRunner | None = None
        self._meter: asyncio.Task[None] | None = None
        self.address = ""
        self.port = port

    async def start(self) -> None:
        """Listen; `address` and `port` tell where.

        Raises:
            ConfigError: the address cannot be used.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError as error:
            message = (
                f"worker.health_port: cannot listen on {self._host}:{self._port}: {error.strerror}; "
                "choose another, or 0 for any free one"
            )
            raise ConfigError(message) from error
        host, self.port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{self.port}"
        self._meter = asyncio.ensure_future(_measure_lag())

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems() + self._unready())

    async def aclose(self) -> None:
        """Stop listening."""
        if self._meter is not None:
            self._meter.cancel()
        if self._runner is not None:
            await self._runner.cleanup()


def _answer(problems: list[str]) -> web.Response:
    status = "ok" if not problems else "failing"
    return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )


async def _measure_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        LOOP_LAG.set(max(0.0, loop.time() - due))
