"""Serves an ASGI application with granian inside this process's event loop.

See: docs/adr/0004-http-server.md for why granian, why embedded, and what is ours to check.
Source: granian 2.8.7, granian/server/embed.py.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server as EmbeddedServer

from contracts.errors import PenstockError
from gateways.listening import BACKLOG

# Headers of one request; hyper answers 431 beyond it.
_MAX_BUFFER_BYTES = 64 * 1024
# Files that are not HTTP connections: Kafka, logs, libraries.
_OTHER_FILES = 256


class Server(EmbeddedServer):
    """One listener on a socket that we bound ourselves, so that its port is known and nobody else shares it.

    Args:
        app: the ASGI application.
        listener: bound and listening; owned by this object from now on.
        header_timeout_s: until the headers must have come, also on an idle connection.
        max_connections: at a time; slow ones are closed by the header and body deadlines.
    """

    def __init__(
        self, app: Callable[..., Any], listener: socket.socket, header_timeout_s: float, max_connections: int = 4096
    ) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=True,
            backlog=BACKLOG,
            backpressure=_connection_limit(max_connections),
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, int(header_timeout_s * 1000)), max_buffer_size=_MAX_BUFFER_BYTES
            ),
            # Its notice that embedding is experimental, a warning, is answered in the ADR.
            log_level=LogLevels.error,
            log_dictconfig=_through_ours(),
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._ssp = None
        self._shd = _holder_of(self._listener)


def _through_ours() -> dict[str, Any]:
    """Let its lines go where those of other libraries go, instead of plain to standard output.

    Incremental: everything else about logging is left as it is; by default it would also close our handlers.
    """
    return {"incremental": True, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}


def _holder_of(listener: socket.socket) -> Any:
    """Hand the file descriptor over in granian's own wrapper, built as granian's pickling builds it."""
    holder_type: Any = SocketHolder
    return holder_type(listener.detach(), False, BACKLOG)


async def serve(server: Server, stop: asyncio.Event) -> None:
    """Serve until `stop`, then take no new connections and return when the open requests have been answered."""
    serving = asyncio.ensure_future(server.serve())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not stop.is_set():
        await serving
        message = "the HTTP server ended by itself"
        raise PenstockError(message)
    # What its own signal handler does.
    server.interrupt_signal = True
    server.main_loop_interrupt.set()
    await serving


def _connection_limit(max_connections: int) -> int:
    """Return how many connections fit, after raising this process's soft limit of open files as far as it may go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max_connections if soft == resource.RLIM_INFINITY else max(16, min(max_connections, soft - _OTHER_FILES))
