"""An HTTP client that dials allowed addresses only, whatever a URL, a name server or a redirect says.

Three locks, each enough for most inputs, together for all of them:
1. the resolver refuses a name when any address of its answer is refused: a mixed answer is an attempt;
2. the maker of sockets refuses the very address that is about to be dialled, IP literals included, which aiohttp never
   shows to a resolver; nothing lies between this check and `connect`, so a name server's second answer comes too late;
3. redirects are not followed, proxies of the environment not used, and names not cached beyond a connection.

A kept connection goes where it went when it was checked; the next connection asks for the name again.
"""

import socket
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateways.egress.addresses import AddressPolicy
from producers.threads import DaemonPool

# Interim answers (103 Early Hints) are rare; aiohttp reads on for as long as they come.
MAX_INTERIM_ANSWERS = 8
_KEEP_ALIVE_S = 15.0
_MAX_ADDRESSES = 32


class AddressRefused(Exception):
    """An address that must not be dialled, or a name that leads to one; nothing was opened.

    Args:
        reason: bounded slug of the policy.
    """

    def __init__(self, reason: str, host: str) -> None:
        super().__init__(f"{host[:80]!r} is refused: {reason}")
        self.reason = reason


class TooManyInterimAnswers(aiohttp.ClientError):
    """A server that sends 1xx without end."""


class SystemResolver(AbstractResolver):
    """Asks the system's resolver in threads of its own: a name server that does not answer holds up nobody else's.

    Args:
        threads: names that may be looked up at a time, those included that nobody waits for any longer.
    """

    def __init__(self, threads: int) -> None:
        self._threads = DaemonPool(threads, "egress-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none.
            NoThread: nobody can look it up now.
        """
        found = await self._threads.run(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Forget what is asked; a look-up under way ends in its thread."""
        self._threads.close()


class GuardedResolver(AbstractResolver):
    """Resolves a name, and refuses it when any of its addresses is refused.

    Args:
        policy: which addresses pass.
        resolver: who is asked; its whole answer is judged.
    """

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            AddressRefused: one of them must not be dialled, or there are too many to be meant seriously.
            OSError: the name cannot be resolved.
        """
        answer = await self._resolver.resolve(host, port, family)
        if len(answer) > _MAX_ADDRESSES:
            raise AddressRefused(host=host, reason="too_many_addresses")
        for found in answer:
            reason = self._policy.refusal(found["host"])
            if reason is not None:
                raise AddressRefused(reason, host)
        return answer

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


def guarded_socket(policy: AddressPolicy) -> Callable[[Any], socket.socket]:
    """Return what aiohttp calls for a socket, with the address that it is about to connect it to."""

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = address_info
        reason = policy.refusal(str(address[0]))
        if reason is not None:
            raise AddressRefused(reason, str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


class _Bounded(aiohttp.ClientResponse):
    """A response that gives up on a server which sends interim answers without end."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the head of the answer."""
        return await super().start(cast("Any", _Counted(connection)))


class _Counted:
    """A connection whose protocol counts the heads of answers that are read from it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.protocol = _CountedProtocol(connection.protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _CountedProtocol:
    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._read = 0

    async def read(self) -> Any:
        self._read += 1
        if self._read > MAX_INTERIM_ANSWERS + 1:
            message = f"more than {MAX_INTERIM_ANSWERS} interim answers"
            raise TooManyInterimAnswers(message)
        return await self._protocol.read()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)


def guarded_session(
    policy: AddressPolicy, resolver: AbstractResolver, *, limit: int, timeout_s: float, tls: Any = True
) -> aiohttp.ClientSession:
    """Return a client session; it belongs to the running loop, and whoever asked for it closes it.

    Args:
        policy: which addresses may be dialled.
        resolver: who is asked for names; it is not closed with the session.
        limit: connections at a time.
        timeout_s: for everything from the look-up of the name to the head of the answer.
        tls: an `ssl.SSLContext`, or True for the system's authorities.
    """
    connector = aiohttp.TCPConnector(
        limit=limit,
        resolver=GuardedResolver(policy, resolver),
        use_dns_cache=False,
        socket_factory=guarded_socket(policy),
        ssl=tls,
        keepalive_timeout=_KEEP_ALIVE_S,
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        response_class=_Bounded,
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    )
