"""What a callback's URL may look like: stricter than RFC 3986, so that no two parsers can read it in two ways.

The address that a name leads to is judged when it is dialled; this is about the text alone.
"""

import re
from fnmatch import fnmatchcase
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal, NamedTuple

MAX_URL_CHARS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HOST_CHARS = 253

Reason = Literal[
    "too_long", "characters", "scheme", "userinfo", "host", "trailing_dot", "odd_address", "port", "fragment", "path",
    "literal", "host_not_allowed",
]  # fmt: skip

_SPLIT = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*)(?::(?P<port>.*))?", re.DOTALL)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What the WHATWG URL standard takes for a number, and with it the whole host for an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_URL_CHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_REST = re.compile(rf"(?:/{_URL_CHAR}*)?(?:\?(?:{_URL_CHAR}|\?)*)?")
_MAX_PORT = 65535


class UrlRefused(ValueError):
    """A URL that is not taken; its text says what is.

    Args:
        reason: bounded slug, for metrics and logs.
        allowed: what would do.
    """

    def __init__(self, reason: Reason, allowed: str) -> None:
        super().__init__(allowed)
        self.reason = reason


class Target(NamedTuple):
    """A URL that may be dialled, as far as its text goes.

    Attributes:
        url: as given.
        host: lower case; an IPv6 address without its brackets.
        is_literal: whether the host is an IP address, which no resolver ever sees.
    """

    url: str
    scheme: str
    host: str
    port: int
    is_literal: bool


class UrlRule(NamedTuple):
    """Which URLs somebody may name.

    Attributes:
        hosts: glob patterns over host names.
        ports: that may be dialled.
        allow_http: whether http:// will do.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    allow_http: bool = False

    def check(self, url: str) -> Target:
        """Return the parts of a URL that fits.

        Raises:
            UrlRefused: any other.
        """
        target = read_url(url)
        if target.scheme == "http" and not self.allow_http:
            raise _refused(reason="scheme", allowed="a URL that begins with https://")
        if target.port not in self.ports:
            raise _refused(reason="port", allowed=f"one of the ports {', '.join(map(str, self.ports))}")
        if target.is_literal:
            raise _refused(reason="literal", allowed="a host name, not an address")
        if not any(fnmatchcase(target.host, pattern.lower()) for pattern in self.hosts):
            raise _refused(reason="host_not_allowed", allowed=f"a host of {', '.join(self.hosts)}")
        return target


def read_url(url: str) -> Target:
    """Return a URL's parts.

    Raises:
        UrlRefused: any oddity; whether scheme and port are allowed is for the caller to say.
    """
    if len(url) > MAX_URL_CHARS:
        raise _refused(reason="too_long", allowed=f"at most {MAX_URL_CHARS} characters")
    if not url.isascii() or any(not "!" <= char <= "~" or char == "\\" for char in url):
        raise _refused(
            reason="characters",
            allowed="printable ASCII without spaces and backslashes; names of other scripts as xn--...",
        )
    parts = _SPLIT.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in DEFAULT_PORTS:
        raise _refused(reason="scheme", allowed="a URL that begins with https:// or http://")
    if "@" in parts["authority"]:
        raise _refused(reason="userinfo", allowed="a URL without user name and password")
    if "#" in parts["rest"]:
        raise _refused(reason="fragment", allowed="a URL without #fragment")
    if not _REST.fullmatch(parts["rest"]):
        raise _refused(reason="path", allowed="a path and query of RFC 3986, other characters written as %XX")
    scheme = parts["scheme"].lower()
    host, port = _host_and_port(parts["authority"].lower(), DEFAULT_PORTS[scheme])
    is_literal = host.startswith("[") or _is_ipv4(host)
    return Target(url, scheme, host.strip("[]"), port, is_literal)


def _host_and_port(authority: str, default_port: int) -> tuple[str, int]:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise _refused(reason="host", allowed="a host name or an IP address; IPv6 in brackets")
    _check_host(parts["host"])
    if parts["port"] is None:
        return parts["host"], default_port
    if not _PORT.fullmatch(parts["port"]) or int(parts["port"]) > _MAX_PORT:
        raise _refused(reason="port", allowed=f"a port from 1 to {_MAX_PORT}")
    return parts["host"], int(parts["port"])


def _check_host(host: str) -> None:
    if host.startswith("["):
        _check_ipv6(host[1:-1])
        return
    if host.endswith("."):
        raise _refused(reason="trailing_dot", allowed="a host name without a dot at its end")
    labels = host.split(".")
    if len(host) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise _refused(reason="host", allowed="a host name of letters, digits, hyphens and dots")
    if _NUMBER.fullmatch(labels[-1]) and not _is_ipv4(host):
        raise _refused(reason="odd_address", allowed="an IPv4 address as four decimal numbers without leading zeros")


def _check_ipv6(text: str) -> None:
    try:
        if "%" not in text:
            IPv6Address(text)
            return
    except AddressValueError:
        pass
    raise _refused(reason="odd_address", allowed="an IPv6 address in brackets, without a zone")


def _is_ipv4(host: str) -> bool:
    try:
        return str(IPv4Address(host)) == host
    except AddressValueError:
        return False


def _refused(*, reason: Reason, allowed: str) -> UrlRefused:
    return UrlRefused(reason, allowed)
