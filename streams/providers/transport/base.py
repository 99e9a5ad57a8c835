"""The protocol between a provider and whoever carries its HTTP posts.

See: ADR 0010.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import msgspec


class TransportError(Exception):
    """Base of what a transport raises; the provider translates it into the error tree.

    Attributes:
        possibly_billed: False only when the server cannot have had the whole request.
    """

    def __init__(self, message: str, *, possibly_billed: bool) -> None:
        super().__init__(message)
        self.possibly_billed = possibly_billed


class ConnectFailed(TransportError):
    """Raise when there is no connection: name, TCP, TLS, proxy, or the connect timeout. Nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, possibly_billed=False)


class BrokenOff(TransportError):
    """Raise when the connection ends before the answer does."""


class TimedOut(TransportError):
    """Raise when the call's total time is over, wherever it is then."""


class Unusable(TransportError):
    """Raise when the server answers what is no HTTP, is compressed, or is above a limit."""

    def __init__(self, message: str) -> None:
        super().__init__(message, possibly_billed=True)


class TooLong(Unusable):
    """Raise when the server's answer is above the limit of its body."""


class Unsendable(TransportError):
    """Raise when a header or path cannot be sent, such as one with a line break; nothing was sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message, possibly_billed=False)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server may send, in bytes.

    Attributes:
        head_bytes: status line and headers together; a longer head is Unusable.
        body_bytes: an answer with a 2xx status; a longer one is Unusable.
        refusal_bytes: any other answer; a longer one is cut there, since its beginning says why.
    """

    head_bytes: int = 32 * 1024
    body_bytes: int = 16 * 2**20
    refusal_bytes: int = 64 * 1024


class Headers(dict[str, str]):
    """Headers of an answer: keys are lower case, `get` takes any case."""

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
        """Return a header's value, or the default."""
        return super().get(key.lower(), default)


class Response(msgspec.Struct, eq=False):
    """A whole answer.

    Args:
        status: of the answer.
        headers: of it; or what reads them, at the first use: of an answer that is none of a failure nobody wants them.
        body: all of it.
    """

    status: int
    _headers: Headers | Callable[[], Headers]
    body: bytes

    @property
    def headers(self) -> Headers:
        """Return the headers."""
        if not isinstance(self._headers, Headers):
            self._headers = self._headers()
        return self._headers


@runtime_checkable
class Reply(Protocol):
    """An answer whose body is still coming."""

    status: int
    headers: Headers

    def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes, in pieces of any size; raises as Transport.post does."""
        ...


@runtime_checkable
class Transport(Protocol):
    """Posts to one server; safe for concurrent use by the tasks of one event loop.

    A call has one total time, `timeout_s`, from the call to the last byte; connecting has a limit of its own inside it.
    Nothing is posted twice once the server may have had the whole of it. Redirects are not followed, compression is not
    asked for, cookies are not kept. Further calls than there are connections wait, first come first served. A cancelled
    call, or a reply left early, closes its connection.

    Errors: ConnectFailed, BrokenOff, TimedOut, Unusable, Unsendable; nothing else, except CancelledError.
    """

    name: str

    async def start(self) -> None:
        """Prepare; no network. Raise ConfigError when the settings cannot work."""
        ...

    async def aclose(self) -> None:
        """Cancel the calls in flight and close every connection; safe to call twice."""
        ...

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Response:
        """Post to base URL + path and return the whole answer, whatever its status."""
        ...

    def open(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> AbstractAsyncContextManager[Reply]:
        """Post, and enter as soon as the head of the answer is there; the body comes in pieces."""
        ...
