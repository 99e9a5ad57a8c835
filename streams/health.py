"""The worker's own health page: /healthz, /readyz, /stuck, /metrics; Faust's always says OK."""

from collections.abc import Callable

import msgspec
from aiohttp import web
from prometheus_client import generate_latest

from contracts.errors import ConfigError
from contracts.metrics import REGISTRY
from contracts.stuck import StuckReport


class HealthServer:
    """Serves the four pages.

    Args:
        host, port: where to listen; port 0 = any free one.
        problems: what is wrong with the process's life; empty = alive.
        unready: why it cannot work now; empty = ready.
        report: everything that explains a standstill.
    """

    def __init__(
        self,
        host: str,
        port: int,
        problems: Callable[[], list[str]],
        unready: Callable[[], list[str]],
        report: Callable[[], StuckReport],
    ) -> None:
        self._host = host
        self._port = port
        self._problems = problems
        self._unready = unready
        self._report = report
        self._runner: web.AppRunner | None = None
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
        app.router.add_get("/stuck", self._stuck)
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

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems() + self._unready())

    async def _stuck(self, _request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._report()), content_type="application/json")

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()


def _answer(problems: list[str]) -> web.Response:
    status = "ok" if not problems else "failing"
    return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
