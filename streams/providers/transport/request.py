"""What both transports do before they send: take the base URL apart, check headers, load trusted certificates."""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohappyeyeballs

from contracts.errors import ConfigError
from streams.providers.transport.base import Unsendable

# Source: RFC 9110, 5.1 and 5.5 (checked 2026-11). Values are kept to printable ASCII: servers disagree about the rest.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TARGET = re.compile(r"[\x21-\x7e]*")
# Source: RFC 8305, 8 (checked 2026-11): how long one address has before the next is tried beside it.
_NEXT_ADDRESS_S = 0.25
_MAX_HEADS = 16
_MAX_NAMES = 64


class Address:
    """Where a base URL points.

    Raises:
        ConfigError: it has no host, a user name, or characters that a request line cannot carry.
    """

    def __init__(self, base_url: str) -> None:
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError as error:
            message = f"base_url {base_url!r} cannot be used: {error}"
            raise ConfigError(message) from error
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.is_ip = _is_ip(self.host)
        self.port = port or (443 if self.is_tls else 80)
        self.netloc = parts.netloc.rpartition("@")[2]
        self.path = parts.path.rstrip("/")
        is_plain = "@" not in parts.netloc and _TARGET.fullmatch(base_url) and not parts.query and not parts.fragment
        if not self.host or not is_plain:
            message = f"base_url must be http(s)://host[:port]/path in plain ASCII for transport lean: {self.netloc}"
            raise ConfigError(message)


async def dial(address: Address) -> socket.socket | None:
    """Return a connected socket to a host that is a name; None for an IP address, which is one address.

    A name may have several, of which some are dead (IPv6 that leads nowhere, a server that is down): one that does not
    answer must not use up the time to connect. uvloop tries them one after the other.

    Raises:
        OSError: none of them answers.
        RuntimeError: no thread to look the name up in can be started.
    """
    if address.is_ip:
        return None
    found = await _look_up(address.host, address.port)
    return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_S)


async def _look_up(host: str, port: int) -> Sequence[aiohappyeyeballs.AddrInfoType]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Heads:
    """Renders request heads; what all calls of a path have in common is rendered once."""

    def __init__(self, address: Address, headers: Mapping[str, str]) -> None:
        check(headers)
        common = {"Host": address.netloc, "Accept": "*/*", "Accept-Encoding": "identity"} | dict(headers)
        self._common = "".join(f"{name}: {value}\r\n" for name, value in common.items())
        self._base = address.path
        self._begun: dict[str, str] = {}
        # Names that were looked at: a program has few.
        self._names: set[str] = set()

    def render(self, path: str, headers: Mapping[str, str], body_bytes: int) -> bytes:
        """Return the head of a POST.

        Raises:
            Unsendable: a header or the path has characters that would end it early.
        """
        begun = self._begun.get(path) or self._begin(path)
        for name, value in headers.items():
            # The usual value without an expression.
            if not (value.isascii() and value.isprintable()) and not _VALUE.fullmatch(value):
                raise _unsendable(name)
            if name not in self._names:
                self._learn(name)
            begun += f"{name}: {value}\r\n"
        return f"{begun}Content-Length: {body_bytes}\r\n\r\n".encode("ascii")

    def _learn(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise _unsendable(name)
        if len(self._names) < _MAX_NAMES:
            self._names.add(name)

    def _begin(self, path: str) -> str:
        if not _TARGET.fullmatch(path):
            message = "the path has characters that a request line cannot carry"
            raise Unsendable(message)
        if len(self._begun) >= _MAX_HEADS:
            self._begun.clear()
        begun = self._begun[path] = f"POST {self._base}{path} HTTP/1.1\r\n{self._common}"
        return begun


def check(headers: Mapping[str, str]) -> None:
    """Refuse headers that would smuggle in others.

    Raises:
        Unsendable: a name is no token, or a value has a line break or other control characters.
    """
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _unsendable(name)


def _unsendable(name: str) -> Unsendable:
    # The value is not repeated: it may be a secret.
    return Unsendable(f"header {name[:40]!r} has characters that HTTP cannot carry")


def trust(ca_file: Path | None) -> ssl.SSLContext:
    """Return a client context that verifies chain and host name; `ca_file` takes the place of the system's list.

    Blocking: reads certificates, some ten milliseconds.

    Raises:
        ConfigError: the file has no certificate that can be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ValueError) as error:
        message = f"providers: ca_file {ca_file} cannot be used: {error}"
        raise ConfigError(message) from error
    context.set_alpn_protocols(["http/1.1"])
    return context
