"""The gateway's address: a socket that listens, and where others learn its port.

Source: tcp(7), TCP_USER_TIMEOUT (Linux 5.11 and later count a window that stays closed; checked 2026-11).
"""

import os
import socket
from pathlib import Path

from contracts.errors import ConfigError
from contracts.settings.section import authority, cannot_listen

BACKLOG = 1024
# A client that takes nothing of what waits for it for so long loses its connection: the HTTP server has no limit of its
# own there, and would keep place and answer for as long as the client's system says that it is alive.
UNREAD_LIMIT_S = 60.0


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any free one.

    Raises:
        ConfigError: the address cannot be used; names the settings.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:
        raise _refused(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Linux alone has it; the sockets of the connections inherit it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_LIMIT_S * 1000))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    listener.setblocking(False)
    return listener


def _refused(host: str, port: int, error: OSError | ValueError) -> ConfigError:
    return cannot_listen("gateway", host, port, error, ("host", "port"))


def nearby(host: str) -> str:
    """Return the address by which this machine reaches a server that listens on `host`, which may be all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared


def reached_at(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens there."""
    return f"http://{authority(nearby(host), port)}"


def announce(host: str, port: int, port_file: Path | None) -> None:
    """Say where the gateway listens, to people and in the file.

    Raises:
        ConfigError: the file cannot be written.
    """
    print(f"listening on http://{authority(host, port)}", flush=True)  # noqa: T201 - the one line for people
    if port_file is None:
        return
    # Renamed into place, so that a reader never sees half of it.
    partial = port_file.with_name(f"{port_file.name}.{os.getpid()}")
    try:
        partial.write_text(f"{port}\n", encoding="ascii")
        partial.replace(port_file)
    except OSError as error:
        message = f"--port-file {port_file} cannot be written: {error.strerror}"
        raise ConfigError(message) from error
