"""The health page of `penstock ingress`: /healthz, /readyz, /metrics."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from contracts.metrics import REGISTRY
from contracts.settings.section import authority, cannot_listen

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class DoorHealth:
    """Serves the page.

    Args:
        host, port: where to listen; port 0 = any free one.
        unready: why not every door takes what comes; empty = ready.
    """

    def __init__(self, host: str, port: int, unready: Callable[[], list[str]]) -> None:
        self._host = host
        self._port = port
        self._unready = unready
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen and return the address.

        Raises:
            ConfigError: it cannot be used.
        """
        app = web.Application()
        # A process that answers lives: a door's own end is the end of the process.
        app.router.add_get("/healthz", _alive)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except (OSError, ValueError) as error:
            problem = cannot_listen("ingress_process", self._host, self._port, error)
            raise problem from error
        host, port = self._runner.addresses[0][:2]
        return f"http://{authority(host, port)}"

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _ready(self, _request: web.Request) -> web.Response:
        return _answer(self._unready())


async def _alive(_request: web.Request) -> web.Response:
    return _answer([])


def _answer(problems: list[str]) -> web.Response:
    status = "failing" if problems else "ok"
    return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(REGISTRY), headers={"Content-Type": _METRICS_TYPE})
