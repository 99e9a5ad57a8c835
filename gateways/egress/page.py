"""A health page: /healthz, /readyz, /metrics. The doors out have it, and `penstock batch serve`."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from contracts.metrics import REGISTRY
from contracts.settings.section import authority, cannot_listen


class HealthPage:
    """Serves the three pages.

    Args:
        section: of the settings, which names the address.
        host: where to listen.
        port: the same; 0 = any free one.
        problems: what only a restart can mend; empty = alive.
        unready: why nothing is done now; empty = ready.
    """

    def __init__(
        self, section: str, host: str, port: int, problems: Callable[[], list[str]], unready: Callable[[], list[str]]
    ) -> None:
        self._section = section
        self._host = host
        self._port = port
        self._problems = problems
        self._unready = unready
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen, and return the address.

        Raises:
            ConfigError: the address cannot be used.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except (OSError, ValueError) as error:
            raise cannot_listen(self._section, self._host, self._port, error) from error
        host, port = self._runner.addresses[0][:2]
        return f"http://{authority(host, port)}"

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems() + self._unready())


def _answer(problems: list[str]) -> web.Response:
    status = "ok" if not problems else "failing"
    return web.json_response({"status": status, "problems": problems}, status=503 if problems else 200)


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
