"""Carries posts with aiohttp: proxies, odd servers; good up to some 256 calls in flight.

See: ADR 0010.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from streams.providers.transport.base import (
    BrokenOff,
    ConnectFailed,
    Headers,
    Limits,
    Response,
    TimedOut,
    TooLong,
    TransportError,
    Unusable,
)
from streams.providers.transport.request import check, trust

_LONG_BYTES = 2**19
# What aiohttp raises of a call.
_ERRORS = (TimeoutError, aiohttp.ClientError, OSError, ValueError)


class General:
    """The transport of aiohttp.

    Args:
        base_url: http or https; paths are appended to it.
        headers: sent with every call.
        max_connections: further calls wait.
        connect_timeout_s: limit of name resolution, TCP and TLS handshake.
        ca_file: certificates to trust in place of the system's.
        proxy: URL of an HTTP proxy for all calls; the environment's are never used.
    """

    name = "aiohttp"

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        max_connections: int,
        connect_timeout_s: float = 3.0,
        limits: Limits | None = None,
        ca_file: Path | None = None,
        proxy: str | None = None,
    ) -> None:
        check(headers)
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).netloc.rpartition("@")[2]
        self._headers = {"Accept-Encoding": "identity"} | dict(headers)
        self._max_connections = max_connections
        self._connect_timeout_s = connect_timeout_s
        self._limits = limits or Limits()
        self._ca_file = ca_file
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Create the connection pool.

        Raises:
            ConfigError: ca_file has no certificates.
        """
        if self._session is not None:
            return
        is_tls = self._base_url.startswith("https:")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections, ssl=trust(self._ca_file) if is_tls else True, keepalive_timeout=4.0
            ),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=self._limits.head_bytes,
            max_field_size=self._limits.head_bytes,
            trace_configs=[_sent_tracer()],
            response_class=_Response,
        )

    async def aclose(self) -> None:
        """Cancel the calls in flight and close every connection."""
        session, self._session = self._session, None
        for call in list(self._calls):
            call.cancel()
        if session is not None:
            await session.close()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Response:
        """Post and return the whole answer."""
        async with self.open(path, body, headers, timeout_s) as reply:
            pieces = [piece async for piece in reply.pieces()]
            return Response(reply.status, reply.headers, b"".join(pieces))

    @contextlib.asynccontextmanager
    async def open(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> AsyncIterator["Streamed"]:
        """Post, and yield the answer as soon as its head is there."""
        if self._session is None:
            message = "the transport is not started, or closed"
            raise ConnectFailed(message)
        check(headers)
        call, sent = asyncio.current_task(), _Sent()
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(self._connect_timeout_s, timeout_s))
        if call is not None:
            self._calls.add(call)
        try:
            async with self._session.post(
                self._base_url + path,
                # aiohttp warns about long bytes, and sends a file in pieces.
                data=body if len(body) < _LONG_BYTES else io.BytesIO(body),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=sent,
            ) as response:
                _check_head(response, self._limits)
                yield Streamed(response, self._limits, lambda error: self._translate_error(error, sent))
        except _ERRORS as error:
            raise self._translate_error(error, sent) from error
        except RuntimeError as error:
            if sent.is_sent:
                raise
            # No thread to look the name up in can be started.
            message = f"no connection to {self._host}: {error}"
            raise ConnectFailed(message) from error
        finally:
            if call is not None:
                self._calls.discard(call)

    def _translate_error(self, error: Exception, sent: "_Sent") -> TransportError:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            return ConnectFailed(f"no connection to {self._host}: {error}")
        if isinstance(error, TimeoutError):
            return TimedOut(f"{self._host} did not answer in time", possibly_billed=sent.is_sent)
        if isinstance(error, aiohttp.InvalidURL):
            return ConnectFailed(f"base_url cannot be used: {error}")
        if isinstance(error, aiohttp.ClientHttpProxyError):
            return ConnectFailed(f"the proxy refused: {error.status}")
        if isinstance(error, aiohttp.ClientResponseError):
            return Unusable(f"the server's answer is no HTTP/1.1: {str(error)[:200]}")
        said = str(error) or type(error).__name__
        return BrokenOff(f"the server closed the connection: {said[:200]}", possibly_billed=True)


class Streamed:
    """The body of an answer as it comes."""

    def __init__(
        self, response: aiohttp.ClientResponse, limits: Limits, translate: Callable[[Exception], TransportError]
    ) -> None:
        self.status = response.status
        self.headers = Headers((name.lower(), value) for name, value in response.headers.items())
        self._response = response
        self._limits = limits
        self._translate = translate

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        coding = self.headers.get("content-encoding", "identity")
        if coding.lower() != "identity":
            message = f"the server compressed its answer ({coding[:20]}), which was not asked for"
            raise Unusable(message)
        is_success = 200 <= self.status < 300  # noqa: PLR2004 - the class of the status
        left = self._limits.body_bytes if is_success else self._limits.refusal_bytes
        async for piece in self._read():
            if len(piece) > left and is_success:
                message = f"the server's answer is longer than {self._limits.body_bytes} bytes"
                raise TooLong(message)
            yield piece[:left]
            left -= len(piece)
            if left < 0:
                return
        # Of a refusal the beginning is enough: who refuses a question before it has read it resets the connection.
        if is_success and isinstance(self._response, _Response) and self._response.was_cut:
            message = "the server closed the connection: reset in the body"
            raise BrokenOff(message, possibly_billed=True)

    async def _read(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except _ERRORS as error:
            raise self._translate(error) from error


def _check_head(response: aiohttp.ClientResponse, limits: Limits) -> None:
    # aiohttp bounds each line, and their number, but not the sum. A line has four bytes more than name and value.
    status_line = f"HTTP/1.1 {response.status} {response.reason}"
    if len(status_line) + sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > limits.head_bytes:
        message = f"the server's headers are longer than {limits.head_bytes} bytes"
        raise Unusable(message)


class _Response(aiohttp.ClientResponse):
    """Knows how its connection ended: aiohttp takes a reset for the end of a body without length or chunks."""

    _ended: asyncio.Future[None] | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Keep hold of the connection's end: the connection itself is given back when the body ends."""
        if connection.protocol is not None:
            self._ended = connection.protocol.closed
            if self._ended is not None:
                # Once for the connection, which serves many calls: it would keep one of each of them.
                self._ended.remove_done_callback(_seen)
                self._ended.add_done_callback(_seen)
        return await super().start(connection)

    @property
    def was_cut(self) -> bool:
        """Whether only the end of the connection could tell that the body is whole, and it was a reset."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            return False
        ended = self._ended
        return ended is not None and ended.done() and not ended.cancelled() and ended.exception() is not None


def _seen(ended: asyncio.Future[None]) -> None:
    """Look at a connection's end, so that asyncio does not log an error that nobody asked for."""
    if not ended.cancelled():
        ended.exception()


class _Sent:
    """Whether the head of a request has been written; from then on a call may be billed."""

    is_sent = False


def _sent_tracer() -> aiohttp.TraceConfig:
    tracer = aiohttp.TraceConfig()

    async def sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.is_sent = True

    tracer.on_request_headers_sent.append(sent)
    return tracer
