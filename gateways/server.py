"""Serves an ASGI application with granian inside this process's event loop.

See: docs/adr/0004-http-server.md for why granian, why embedded, and what is ours to check.
Source: granian 2.8.7, granian/server/embed.py.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

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
_FEWEST_CONNECTIONS = 16


class Room(NamedTuple):
    """How much may be open at a time: connections, and WebSockets beside them."""

    connections: int
    websockets: int


_USUAL = Room(4096, 1000)


class Server(EmbeddedServer):
    """One listener on a socket that we bound ourselves, so that its port is known and nobody else shares it.

    Args:
        app: the ASGI application.
        listener: bound and listening; owned by this object from now on.
        header_timeout_s: until the headers must have come, also on an idle connection.
        room: connections at a time, of which slow ones are closed by the header and body deadlines. A WebSocket is none
            of them any more once it is accepted: how many there are is for the application to see to. Without room for
            one there are none.
    """

    def __init__(
        self, app: Callable[..., Any], listener: socket.socket, header_timeout_s: float, room: Room = _USUAL
    ) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=room.websockets > 0,
            backlog=BACKLOG,
            backpressure=room.connections,
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


def room_for(wanted: Room) -> Room:
    """Return how much of it fits, after raising this process's soft limit of open files as far as it may go.

    Where that is less than is wanted, both get their share of it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sum(wanted) + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    files = max(0, soft - _OTHER_FILES)
    websockets = min(wanted.websockets, max(1, files * wanted.websockets // sum(wanted)))
    return Room(max(_FEWEST_CONNECTIONS, files - websockets), websockets)
