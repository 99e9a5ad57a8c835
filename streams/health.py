"""Health pages: /healthz, /readyz, /metrics, and /stuck of a worker; Faust's own always says OK."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from aiohttp import web
from prometheus_client import generate_latest

from contracts.metrics import REGISTRY
from contracts.settings.section import authority, cannot_listen
from contracts.stuck import StuckReport


class HealthServer:
    """Serves the pages.

    Args:
        section: of the settings, which names the address.
        host, port: where to listen; port 0 = any free one.
        problems: what is wrong with the process's life; empty = alive.
        unready: why it cannot work now; empty = ready.
        warnings: what somebody should look into although it is ready.
        report: everything that explains a standstill; no /stuck when None.
    """

    def __init__(
        self,
        section: str,
        host: str,
        port: int,
        problems: Callable[[], list[str]],
        unready: Callable[[], list[str]],
        warnings: Callable[[], list[str]] = list,
        report: Callable[[], StuckReport] | None = None,
    ) -> None:
        self._section = section
        self._host = host
        self._port = port
        self._problems = problems
        self._unready = unready
        self._warnings = warnings
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
        if self._report is not None:
            app.router.add_get("/stuck", _stuck(self._report))
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except (OSError, ValueError) as error:
            raise cannot_listen(self._section, self._host, self._port, error) from error
        host, self.port = self._runner.addresses[0][:2]
        self.address = f"http://{authority(host, self.port)}"

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems())

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _answer(self._problems() + self._unready(), self._warnings())

    async def aclose(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()


def _answer(problems: list[str], warnings: Sequence[str] = ()) -> web.Response:
    status = "ok" if not problems else "failing"
    document = {"status": status, "problems": problems} | ({"warnings": warnings} if warnings else {})
    return web.json_response(document, status=503 if problems else 200)


def _stuck(report: Callable[[], StuckReport]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(report()), content_type="application/json")

    return answer


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(
        body=generate_latest(REGISTRY), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
    )
