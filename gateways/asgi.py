"""One HTTP exchange over ASGI: the request as raw bytes, its body within a cap and a deadline, the answer.

Source: ASGI 3.0 HTTP specification; granian 2.8, which reports a body that was cut short as http.disconnect.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from contracts.errors import BodyTimeout, InvalidPayload, TooLarge, UnsupportedMedia
from gateways.ingress.admission import Admission

if TYPE_CHECKING:
    from gateways.streaming import Stream

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_LENGTH = re.compile(rb"[0-9]{1,15}")
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
        is_body_pending: the body has not been read to its end.
        is_quiet: no log line is due for this exchange.
    """

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.http_version: str = scope.get("http_version", "1.1")
        self.path: bytes = scope.get("raw_path") or scope["path"].encode()
        self.query: bytes = scope.get("query_string", b"")
        # Who connected: a proxy in front, if there is one; parts.peers knows who is behind it.
        self.peer: str = (scope.get("client") or ("",))[0]
        self.headers: RawHeaders = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        self.notes: dict[str, Any] = {}
        self.is_quiet = False
        self._receive = receive
        names = {name for name, _ in self.headers}
        self.is_body_pending = b"transfer-encoding" in names or (self.values(b"content-length") or [b"0"]) != [b"0"]

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of every line of a header."""
        return [value for line, value in self.headers if line == name]

    @asynccontextmanager
    async def body(self, limit_bytes: int, timeout_s: float, admission: Admission) -> AsyncIterator[bytes]:
        """Read the body, and hold its bytes against the admission until the block ends.

        Raises:
            TooLarge: declared or received more than the limit; a declared one is refused unread.
            BodyTimeout: not complete in time.
            InvalidPayload: cut short, or the declared length is none.
            UnsupportedMedia: compressed.
            Busy: too many bytes in flight.
        """
        declared = self._declared_length()
        if declared is not None and declared > limit_bytes:
            raise TooLarge(_too_large(limit_bytes))
        if any(value.strip().lower() != b"identity" for value in self.values(b"content-encoding")):
            message = "compressed bodies are not accepted"
            raise UnsupportedMedia(message)
        received = bytearray()
        try:
            await self._read(received, limit_bytes, timeout_s, admission)
            self._check_length(declared, len(received))
            yield bytes(received)
        finally:
            admission.release(len(received))

    async def discard(self) -> None:
        """Read a small body and drop it, so that its connection can go on; one that is large or slow is left unread."""
        lengths = self.values(b"content-length")
        is_small = len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) and int(lengths[0]) <= _DISCARD_BYTES
        if not is_small or self.values(b"expect"):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while (message := await self._receive())["type"] == "http.request":
                    if not message.get("more_body", False):
                        self.is_body_pending = False
                        return

    async def receive(self) -> Message:
        """Return the next message, for who goes on when the body has been read."""
        return await self._receive()

    async def gone(self) -> None:
        """Return when the client has hung up; only for a request whose body has been read or that has none."""
        while (await self._receive())["type"] == "http.request":
            pass

    async def _read(self, received: bytearray, limit_bytes: int, timeout_s: float, admission: Admission) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        detail = "the body was cut short"
                        raise InvalidPayload(detail)
                    chunk = message.get("body", b"")
                    if len(received) + len(chunk) > limit_bytes:
                        raise TooLarge(_too_large(limit_bytes))
                    admission.reserve(len(chunk))
                    received += chunk
                    if not message.get("more_body", False):
                        return
        except TimeoutError as error:
            detail = "the body did not arrive in time"
            raise BodyTimeout(detail) from error

    def _declared_length(self) -> int | None:
        values = self.values(b"content-length")
        if not values:
            return None
        if len(values) > 1 or not _LENGTH.fullmatch(values[0]):
            message = "content-length is not one number"
            raise InvalidPayload(message)
        return int(values[0])

    def _check_length(self, declared: int | None, received: int) -> None:
        if declared not in {None, received}:
            message = "the body has another length than declared"
            raise InvalidPayload(message)
        self.is_body_pending = False


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
