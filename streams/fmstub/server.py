"""The stub's HTTP server: routes, start, and an end that does not wait for hanging calls.

Blocking: `serve` runs until SIGTERM or SIGINT.
"""

import asyncio
from pathlib import Path

from aiohttp import web

from contracts.signals import StopSignals
from streams.fmstub import bedrock, control, jobs, openai
from streams.fmstub.call import Backend
from streams.fmstub.jobs_run import JobObjects
from streams.fmstub.wire import BACKEND

_MAX_BODY_BYTES = 25 * 2**20
_SHUTDOWN_S = 1.0
_MODEL = "/model/{model_id:.+}"


def create_app(backend: Backend, objects: JobObjects | None = None) -> web.Application:
    """Return the application over a backend; batch jobs need an S3 endpoint."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app[BACKEND] = backend
    app[jobs.JOBS] = jobs.Jobs(objects)
    app.on_shutdown.append(app[jobs.JOBS].aclose)
    app.add_routes(
        [
            web.post(f"{_MODEL}/converse", bedrock.converse),
            web.post(f"{_MODEL}/converse-stream", bedrock.converse_stream),
            web.post(f"{_MODEL}/invoke", bedrock.invoke),
            web.post(f"{_MODEL}/invoke-with-response-stream", bedrock.invoke_stream),
            web.post("/model-invocation-job", jobs.create_job),
            web.get("/model-invocation-jobs", jobs.list_jobs),
            web.get("/model-invocation-job/{job:.+}", jobs.get_job),
            web.post("/model-invocation-job/{job:.+}/stop", jobs.stop_job),
            web.post("/v1/chat/completions", openai.chat),
            web.post("/v1/completions", openai.completions),
            web.post("/v1/embeddings", openai.embeddings),
            web.get("/v1/models", openai.models),
            web.get("/_stub/knobs", control.show_knobs),
            web.put("/_stub/knobs", control.put_knobs),
            web.patch("/_stub/knobs", control.patch_knobs),
            web.get("/_stub/stats", control.show_stats),
            web.delete("/_stub/stats", control.reset_stats),
            web.get("/healthz", control.health),
        ]
    )
    return app


class Server:
    """One listening stub; usable in a test's loop as well as in a process of its own."""

    def __init__(
        self,
        backend: Backend,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        objects: JobObjects | None = None,
        shutdown_s: float = _SHUTDOWN_S,
    ) -> None:
        self.backend = backend
        self._host = host
        self._port = port
        # A client that hangs up frees its handler: hanging calls would pile up otherwise.
        self._runner = web.AppRunner(
            create_app(backend, objects), access_log=None, handler_cancellation=True, shutdown_timeout=shutdown_s
        )

    async def start(self) -> int:
        """Listen; return the port.

        Raises:
            OSError: the address cannot be had.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=1024)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        port: int = self._runner.addresses[0][1]
        return port

    async def aclose(self) -> None:
        """Stop listening and cancel calls that do not end by themselves; safe to call twice."""
        await self._runner.cleanup()


async def serve(
    backend: Backend, host: str, port: int, port_file: Path | None, objects: JobObjects | None = None
) -> None:
    """Listen, say where, and run until SIGTERM or SIGINT.

    Raises:
        OSError: the address cannot be had, or the port file cannot be written.
    """
    stop = asyncio.Event()
    StopSignals(lambda _: stop.set()).follow(asyncio.get_running_loop().add_signal_handler)
    server = Server(backend, host, port, objects=objects)
    bound = await server.start()
    try:
        if port_file is not None:
            # Renamed into place: a reader never sees half a number.
            partial = port_file.with_name(port_file.name + ".part")
            partial.write_text(f"{bound}\n", encoding="ascii")
            partial.replace(port_file)
        shown = f"[{host}]" if ":" in host else host
        print(f"listening on http://{shown}:{bound}", flush=True)  # noqa: T201 - the line scripts wait for
        await stop.wait()
    finally:
        await server.aclose()
