"""One HTTP exchange over ASGI: the request as raw bytes, its body within a cap and a deadline, the answer.

Source: ASGI 3.0 HTTP specification; granian 2.8, which reports a body that was cut short as http.disconnect.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from contracts.errors import BodyTimeout, InvalidPayload, TooLarge, UnsupportedMedia
from gateways.ingress.admission import Admission
from gateways.ingress.deadlines import Deadline
from gateways.ingress.header_lines import Lines, values_of

if TYPE_CHECKING:
    from gateways.streaming import Stream

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NO_LENGTH = b"0"
_LENGTH = re.compile(rb"[0-9]{1,15}")
_MOST_DIGITS = 15
_CUT_SHORT = "the body was cut short"
_OTHER_LENGTH = "the body has another length than declared"
_LATE = "the body did not arrive in time"
# Of a request that is refused unread: so much of it comes with its headers anyway, and a new connection costs more.
_DISCARD_BYTES = 16 * 1024
_DISCARD_S = 0.1


class Response(NamedTuple):
    """An answer; `closes` ends the connection behind it, `stream` is a long body in place of `body`."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    closes: bool = False
    stream: "Stream | None" = None


class Request:
    """One request, header names in lower case, nothing decoded.

    Attributes:
        notes: fields for the one log line of this exchange; names from contracts.logs.FIELDS.
        header_bytes: names and values of all headers.
        is_body_pending: the body has not been read to its end.
        is_quiet: no log line is due for this exchange.
        receive: gives the next message, for who goes on when the body has been read.
    """

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.http_version: str = scope.get("http_version", "1.1")
        self.path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.query: bytes = scope.get("query_string", b"")
        # Who connected: a proxy in front, if there is one; parts.peers knows who is behind it.
        self.peer: str = (scope.get("client") or ("",))[0]
        lines = scope["headers"]
        if lines and type(lines[0][0]) is not bytes:
            lines = [(bytes(name), bytes(value)) for name, value in lines]
        self.headers = Lines(lines)
        self.notes: dict[str, Any] = {}
        self.receive = receive
        self.is_quiet = False
        self.header_bytes = sum(map(len, chain.from_iterable(self.headers)))
        once, repeated = self.headers.once, self.headers.repeated
        self.is_body_pending = once.get(b"content-length", _NO_LENGTH) != _NO_LENGTH or b"transfer-encoding" in once
        if repeated and not self.is_body_pending:
            self.is_body_pending = b"content-length" in repeated or b"transfer-encoding" in repeated

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of every line of a header."""
        return values_of(self.headers, name)

    def body(self, limit_bytes: int, timeout_s: float, admission: Admission) -> "Body":
        """Read the body with `async with`, and hold its bytes against the admission until the block ends.

        Raises:
            TooLarge: declared or received more than the limit; a declared one is refused unread.
            BodyTimeout: not complete in time.
            InvalidPayload: cut short, or the declared length is none.
            UnsupportedMedia: compressed.
            Busy: too many bytes in flight.
        """
        return Body(self, limit_bytes, timeout_s, admission)

    async def read(self, limit_bytes: int, timeout_s: float, admission: Admission) -> bytes:
        """Read the body as `body`, for a caller that gives its bytes back to the admission by itself.

        Raises:
            PenstockError: as `body`; nothing is held then.
        """
        declared = self._check(limit_bytes)
        parts: list[bytes] = []
        held_bytes = 0
        try:
            with Deadline(timeout_s):
                while True:
                    message = await self.receive()
                    if message["type"] != "http.request":
                        raise InvalidPayload(_CUT_SHORT)  # noqa: TRY301 - one call less
                    part = message.get("body", b"")
                    if held_bytes + len(part) > limit_bytes:
                        raise TooLarge(_too_large(limit_bytes))  # noqa: TRY301
                    admission.reserve(len(part))
                    held_bytes += len(part)
                    parts.append(part)
                    if not message.get("more_body", False):
                        break
            if declared is not None and declared != held_bytes:
                raise InvalidPayload(_OTHER_LENGTH)  # noqa: TRY301
        except BaseException as error:
            admission.release(held_bytes)
            if isinstance(error, TimeoutError):
                raise BodyTimeout(_LATE) from error
            raise
        self.is_body_pending = False
        return bytes(part) if len(parts) == 1 else b"".join(parts)

    def _check(self, limit_bytes: int) -> int | None:
        """Return the declared length; refuse what need not be read."""
        once, repeated = self.headers.once, self.headers.repeated
        value = once.get(b"content-length")
        if value is not None and len(value) <= _MOST_DIGITS and value.isdigit():
            declared: int | None = int(value)
        else:
            declared = _declared_length(self.values(b"content-length"))
        if declared is not None and declared > limit_bytes:
            raise TooLarge(_too_large(limit_bytes))
        if b"content-encoding" in once or repeated:
            encodings = self.values(b"content-encoding")
            if any(value.strip().lower() != b"identity" for value in encodings):
                message = "compressed bodies are not accepted"
                raise UnsupportedMedia(message)
        return declared

    async def discard(self) -> None:
        """Read a small body and drop it, so that its connection can go on; one that is large or slow is left unread."""
        lengths = self.values(b"content-length")
        is_small = len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) and int(lengths[0]) <= _DISCARD_BYTES
        if not is_small or self.values(b"expect"):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while (message := await self.receive())["type"] == "http.request":
                    if not message.get("more_body", False):
                        self.is_body_pending = False
                        return

    async def gone(self) -> None:
        """Return when the client has hung up; only for a request whose body has been read or that has none."""
        while (await self.receive())["type"] == "http.request":
            pass


class Body:
    """The block in which a body is held; see `Request.body`. A class, because a generator costs twice as much."""

    __slots__ = ("_admission", "_held_bytes", "_limit_bytes", "_request", "_timeout_s")

    def __init__(self, request: Request, limit_bytes: int, timeout_s: float, admission: Admission) -> None:
        self._request = request
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._admission = admission
        self._held_bytes = 0

    async def __aenter__(self) -> bytes:
        """Return the whole body."""
        body = await self._request.read(self._limit_bytes, self._timeout_s, self._admission)
        self._held_bytes = len(body)
        return body

    async def __aexit__(self, *_error: object) -> None:
        """Let go of its bytes."""
        self._admission.release(self._held_bytes)


def _declared_length(values: list[bytes]) -> int | None:
    if not values:
        return None
    if len(values) > 1 or not _LENGTH.fullmatch(values[0]):
        message = "content-length is not one number"
        raise InvalidPayload(message)
    return int(values[0])


async def send(response: Response, send_message: Send, *, is_head: bool) -> None:
    """Send an answer; without its body for HEAD."""
    headers = [(b"content-length", b"%d" % len(response.body)), *response.headers]
    if response.body:
        headers.append((b"content-type", response.content_type))
    if response.closes:
        headers.append((b"connection", b"close"))
    await send_message({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if is_head else response.body
    await send_message({"type": "http.response.body", "body": body, "more_body": False})


def _too_large(limit_bytes: int) -> str:
    return f"the body is larger than {limit_bytes} bytes"
