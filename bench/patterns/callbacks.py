"""Scenario `ssrf`: the whole corpus of forbidden addresses, URLs and DNS answers against the client of the callbacks.

Counted as refused: the attempt failed, the interpreter's audit events saw no address dialled, and the listener that a
hole would have led to got no connection. Controls in the same run: an ordinary aiohttp client with what of the corpus
leads to loopback, and the guarded client with an allowed address. Needs no Kafka; nothing leaves the machine.
"""

import asyncio
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple, Self
from urllib.parse import urlsplit

import aiohttp

from bench.figures import Figure, publish
from gateways.egress.addresses import AddressPolicy, networks
from gateways.egress.dialling import AddressRefused, guarded_session
from tests.suites.ssrf import ANSWERS, WATCH, ScriptedResolver, literal_urls, odd_urls

_NAME = "hook.example"
_TIMEOUT_S = 5.0
_REDIRECTS = (300, 301, 302, 303, 307, 308)
_LOOPBACK = AddressPolicy(allowed=networks(["127.0.0.1/32"]))


class _Case(NamedTuple):
    url: str
    rounds: Sequence[Sequence[str]] = (("127.0.0.1",),)


class _Listener:
    """Answers 200 to whoever comes, and counts them; with `location` it redirects."""

    def __init__(self, status: int = 200, location: str = "") -> None:
        self.connections = 0
        self.port = 0
        head = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n"
        self._answer = (head + (f"Location: {location}\r\n" if location else "") + "\r\n").encode()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._answer)
        await writer.drain()
        writer.close()


def ssrf(_bootstrap: str, _seed: int) -> list[Figure]:
    """Run the corpus; a case that is not refused fails the run."""
    return asyncio.run(_measure())


async def _measure() -> list[Figure]:
    async with _Listener() as inside:
        cases = list(_cases(inside.port))
        refused = [case for case in cases if await _is_refused(case, inside)]
        redirects = [code for code in _REDIRECTS if await _stays(code, inside)]
        rebinding = await _rebinding_is_refused(inside)
        reached_before = inside.connections
        unguarded = [case for case in _leading_to_loopback(cases) if await _reaches(case, inside)]
        allowed = await _delivered(inside)
    total = len(cases) + len(_REDIRECTS) + 1
    count = len(refused) + len(redirects) + int(rebinding)
    missing = [case.url[:60] for case in cases if case not in refused]
    for url in missing:
        print(f"NOT refused: {url!r}")  # noqa: T201 - a benchmark's output
    return [
        Figure("refused at dial time", count, "cases", f"= {total}", count == total, is_strict=True),
        Figure(
            "refused at dial time, share", round(100 * count / total, 2), "%", "= 100", count == total, is_strict=True
        ),
        Figure(
            "connections that a hole would have made", reached_before, "connections", "= 0", reached_before == 0, True
        ),
        Figure(
            "control: an ordinary client reached the inside", len(unguarded), "cases", "> 0", len(unguarded) > 0, True
        ),
        Figure("control: an allowed address is delivered to", int(allowed), "of 1", "= 1", allowed, is_strict=True),
    ]


def _cases(port: int) -> Iterator[_Case]:
    yield from (_Case(url) for url in (*literal_urls(port), *odd_urls(port)))
    yield from (_Case(f"http://{_NAME}:{port}/", answer.rounds) for answer in ANSWERS)


async def _is_refused(case: _Case, inside: _Listener) -> bool:
    before = inside.connections
    with WATCH.on() as dialled:
        answered = await _attempt(case, AddressPolicy())
    return not answered and not dialled and inside.connections == before


async def _stays(code: int, inside: _Listener) -> bool:
    """Tell whether a redirect to the inside is taken for what it is: an answer."""
    before = inside.connections
    async with _Listener(code, f"http://127.0.0.1:{inside.port}/") as outside:
        answered = await _attempt(_Case(f"http://{_NAME}:{outside.port}/"), _LOOPBACK)
    return answered and inside.connections == before


async def _rebinding_is_refused(inside: _Listener) -> bool:
    """Tell whether a name that leads to an allowed address first, and inside then, is refused the second time."""
    async with _Listener() as outside:
        resolver = ScriptedResolver([["127.0.0.1"], ["127.0.0.2"]])
        async with guarded_session(_LOOPBACK, resolver, limit=1, timeout_s=_TIMEOUT_S) as session:
            first = await _post(session, f"http://{_NAME}:{outside.port}/")
            with WATCH.on() as dialled:
                second = await _post(session, f"http://{_NAME}:{inside.port}/")
    return first and not second and not dialled


async def _attempt(case: _Case, policy: AddressPolicy) -> bool:
    resolver = ScriptedResolver(case.rounds)
    async with guarded_session(policy, resolver, limit=1, timeout_s=_TIMEOUT_S) as session:
        return await _post(session, case.url)


async def _post(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.post(url, data=b"{}", allow_redirects=False):
            return True
    except (AddressRefused, aiohttp.ClientError, ValueError, OSError):
        return False


def _leading_to_loopback(cases: Iterable[_Case]) -> Iterator[_Case]:
    """Yield what an ordinary client may try: nothing that could leave the machine."""
    for case in cases:
        host = _host(case.url)
        if host == _NAME:
            if all(address.startswith("127.") for address in case.rounds[0]):
                yield case
        elif host and _resolves_to_loopback(host):
            yield case


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _resolves_to_loopback(host: str) -> bool:
    try:
        # Numbers only: no name server is asked.
        flags = 0 if host == "localhost" else socket.AI_NUMERICHOST
        found = {ip_address(info[4][0]) for info in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=flags)}
    except (OSError, UnicodeError, ValueError):
        return False
    return all(address.is_loopback for address in found)


async def _reaches(case: _Case, inside: _Listener) -> bool:
    before = inside.connections
    resolver = ScriptedResolver(case.rounds) if _host(case.url) == _NAME else None
    connector = aiohttp.TCPConnector(resolver=resolver)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=2)) as session:
        await _post(session, case.url)
    return inside.connections > before


async def _delivered(inside: _Listener) -> bool:
    return await _attempt(_Case(f"http://{_NAME}:{inside.port}/"), _LOOPBACK)


if __name__ == "__main__":
    sys.exit(publish("patterns-ssrf", "python -m bench.patterns.callbacks", 1, ssrf("", 0)))
