"""The corpus of addresses, URLs and DNS answers that must never be dialled; tests and the benchmark run it all.

Every URL and every answer is run against the guarded client alone, without the check of the URL's text before it: what
is counted as refused is refused at dial time. `{port}` is a listener on loopback that would notice a hole.
"""

import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from gateways.egress.addresses import REFUSED, networks

_ANY = "0.0.0.0"  # noqa: S104 - to be refused
# Literals: as written in a URL's host.
LITERALS = (
    "127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "0", _ANY, "0x7f000001", "0x7f.0.0.1",
    "0177.0.0.1", "0177.1", "2130706433", "017700000001", "00000177.0.0.1", "127.0.0.1.", "169.254.169.254",
    "169.254.169.254.", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.170.2", "100.100.100.200",
    "192.0.0.192", "168.63.129.16", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1",
    "100.64.0.1", "100.127.255.255", "198.18.0.1", "198.19.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1",
    "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "1.1.1.1.1", "256.256.256.256",
    "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:169.254.169.254]",
    "[::127.0.0.1]", "[::7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::169.254.169.254]", "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[2001::1]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[2001:2::1]",
    "[2001:10::1]", "[2001:20::1]", "[3fff::1]", "[5f00::1]", "[100::1]", "[fc00::1]", "[fd00:ec2::254]",
    "[fd20:ce::254]", "[fe80::1]", "[fe80::1%25lo]", "[fec0::1]", "[ff02::1]", "[3ffe::1]", "[4000::1]",
    "[::ffff:0:127.0.0.1]",
)  # fmt: skip

# Whole URLs: other schemes, user names, other scripts, parser quarrels.
ODD_URLS = (
    "http://user:pass@127.0.0.1:{port}/", "http://example.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@example.com/",
    "http://example.com:80@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@example.com/", "http:\\\\127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:///127.0.0.1:{port}/", "//127.0.0.1:{port}/",
    "file:///etc/passwd", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/",
    "ldap://127.0.0.1:{port}/", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "ws://127.0.0.1:{port}/",
    "jar:http://127.0.0.1:{port}/!/", "data:text/plain,x", "javascript:alert(1)", "netdoc:///etc/passwd",
    "http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:{port}/", "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://127\u30020\u30020\u30021:{port}/", "http://\u2113ocalhost:{port}/", "http://local\u00adhost:{port}/",
    "http://127.0.0.1%00.example.com:{port}/", "http://127.0.0.1%2eexample.com:{port}/", "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1:{port}:80/", "http://127.0.0.1:0{port}/", "http://127.0.0.1: {port}/",
    "http://127.0.0.1:{port}\r\nHost: x/",
    "http://127.0.0.1\t:{port}/", "http://[::1%25lo]:{port}/", "http://[127.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1%25lo]:{port}/",
    "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://localhost.:{port}/", "http://:{port}/", "http://",
    "",
)  # fmt: skip

_PUBLIC = ("93.184.216.34", "2606:4700:4700::1111")


class Answer(NamedTuple):
    """What a name server says: one list of addresses per question; the last one is repeated."""

    label: str
    rounds: tuple[tuple[str, ...], ...]


def _answers() -> Iterator[Answer]:
    for reason, texts in REFUSED.items():
        for network in networks(texts):
            for address in {network[0], network[network.num_addresses // 2], network[-1]}:
                yield Answer(f"{reason}: {address}", ((str(address),),))
    for public in _PUBLIC:
        for inside in ("127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"):
            yield Answer(f"mixed: {public}, {inside}", ((public, inside),))
            yield Answer(f"mixed, the other way round: {inside}, {public}", ((inside, public),))
    yield Answer("not an address", (("not-an-address",),))
    yield Answer("a zone", (("fe80::1%lo",),))
    yield Answer("too many", ((("93.184.216.34",) * 500),))


ANSWERS = tuple(_answers())


def literal_urls(port: int) -> list[str]:
    """Return a URL for each literal."""
    return [f"http://{literal}:{port}/" for literal in LITERALS]


def odd_urls(port: int) -> list[str]:
    """Return the odd URLs."""
    return [text.replace("{port}", str(port)) for text in ODD_URLS]


class ScriptedResolver(AbstractResolver):
    """Answers as told, round by round, and counts how often it was asked."""

    def __init__(self, rounds: Sequence[Sequence[str]]) -> None:
        self._rounds = [tuple(addresses) for addresses in rounds]
        self.asked = 0

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - the base's signature
    ) -> list[ResolveResult]:
        """Return the next round."""
        addresses = self._rounds[min(self.asked, len(self._rounds) - 1)]
        self.asked += 1
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Close nothing."""


class Watch:
    """Addresses that this process has dialled while watched, as the interpreter's own audit events tell."""

    def __init__(self) -> None:
        self.dialled: list[str] = []
        self._is_on = False
        # An audit hook cannot be taken away; it is told to keep quiet instead.
        sys.addaudithook(self._hear)

    @contextmanager
    def on(self) -> Iterator[list[str]]:
        """Watch for a while; gives what is dialled meanwhile."""
        self.dialled = []
        self._is_on = True
        try:
            yield self.dialled
        finally:
            self._is_on = False

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._is_on and event == "socket.connect" and isinstance(args[1], tuple):
            self.dialled.append(str(args[1][0]))


WATCH = Watch()
