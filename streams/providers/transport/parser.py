"""Reads one HTTP/1.1 answer out of bytes that come in pieces of any size.

Strict on purpose: what two parsers could read differently (both lengths, folded or malformed headers, unknown transfer
codings) is refused, and its connection closed. A server that needs more leniency is aiohttp's case.
Source: RFC 9112, 2 to 7 (checked 2026-11).
"""

import re
from collections.abc import Callable

from streams.providers.transport.base import Headers, Limits, TooLong, Unusable

_HEAD = re.compile(
    rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00\r\n]*)?\r\n((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00\r\n]*\r\n)*)\r\n"
)
_LENGTH = re.compile(rb"[0-9]{1,15}")
# What frames a body in any but the usual way, as it stands among lower-case header lines.
_UNUSUAL = (b"\r\ntransfer-encoding:", b"\r\ncontent-encoding:", b"\r\nconnection:")
_USUAL = b"\r\ncontent-length:"
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[^\x00\r\n]*)?\r\n")
_MAX_LINE_BYTES = 1024
_MAX_INTERIM = 8
_SWITCHING = 101
_NO_CONTENT = frozenset({204, 304})


class Parser:
    """One answer at a time; `reset` before the next.

    Attributes:
        has_begun: at least one byte of an answer came.
        has_head: status and headers are there, interim answers (1xx) skipped.
        is_refusal: the head says that there is no result.
        pieces: body bytes not yet taken.
        block: the header lines, as they came.
        keeps_alive: the connection may serve another call when the answer is whole.
    """

    __slots__ = (
        "_buffer", "_interim", "_left", "_limit", "_limits", "_size", "_step", "block", "has_begun", "has_head",
        "is_refusal", "is_whole", "keeps_alive", "pieces", "status",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._buffer = b""
        self._interim = self._left = self._limit = self._size = self.status = 0
        self._step: Callable[[bytes], bytes | None] = self._read_head
        self.has_begun = self.has_head = self.is_refusal = self.is_whole = self.keeps_alive = False
        self.block = b""
        self.pieces: list[bytes] = []

    @property
    def headers(self) -> Headers:
        """Read the headers, each time anew; two of a name are joined by a comma (RFC 9110, 5.3)."""
        return read_headers(self.block)

    def feed(self, data: bytes) -> bool:
        """Take bytes; return whether the answer is whole.

        Raises:
            Unusable: this is no HTTP answer, or a limit is exceeded.
        """
        self.has_begun = True
        rest: bytes | None = self._buffer + data if self._buffer else data
        self._buffer = b""
        while rest is not None and not self.is_whole:
            # A step returns what it left, or None when it needs more than there is.
            rest = self._step(rest)
        if rest:
            # More than one answer to one question: whose it is nobody knows.
            self.keeps_alive = False
        return self.is_whole

    def end(self) -> bool:
        """Take the clean end of the connection; return whether it completes the answer."""
        if self._step == self._read_to_end and self.has_head:
            self.is_whole = True
        self.keeps_alive = False
        return self.is_whole

    def _read_head(self, data: bytes) -> bytes | None:
        end = data.find(b"\r\n\r\n")
        if end > self._limits.head_bytes or (end < 0 and len(data) > self._limits.head_bytes):
            message = f"the server's headers are longer than {self._limits.head_bytes} bytes"
            raise Unusable(message)
        if end < 0:
            if not data.startswith(b"HTTP/1."[: len(data)]):
                raise Unusable(_NO_HTTP)
            self._buffer = data
            return None
        found = _HEAD.match(data)
        if found is None or found.end() != end + 4:
            raise Unusable(_NO_HTTP)
        minor, status, block = found.groups()
        self.status = int(status)
        if self.status < 200:  # noqa: PLR2004 - interim answers
            self._skip_interim()
        else:
            self.block, self.has_head = block, True
            self.is_refusal = self.status >= 300  # noqa: PLR2004 - the class of the status
            self._limit = self._limits.refusal_bytes if self.is_refusal else self._limits.body_bytes
            length = _usual_length(block) if minor == b"1" and self.status not in _NO_CONTENT else None
            if length is None:
                self._begin_body(is_old=minor == b"0")
            else:
                self.keeps_alive = True
                if 0 < length == len(data) - end - 4 <= self._limit:
                    # All of it is there, as usual.
                    self.pieces.append(data[end + 4 :])
                    self.is_whole = True
                    return None
                self._begin_length(length)
        return data[end + 4 :]

    def _skip_interim(self) -> None:
        self._interim += 1
        if self.status == _SWITCHING or self._interim > _MAX_INTERIM:
            message = f"the server sent status {self.status} that nobody asked for"
            raise Unusable(message)

    def _begin_body(self, *, is_old: bool) -> None:
        headers = self.headers
        if "content-encoding" in headers and headers["content-encoding"].lower() != "identity":
            message = f"the server compressed its answer ({headers['content-encoding'][:20]}), which was not asked for"
            raise Unusable(message)
        connection = headers["connection"].lower() if "connection" in headers else ""
        self.keeps_alive = "keep-alive" in connection if is_old else "close" not in connection
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding and (length or is_old or coding.lower() != "chunked"):
            message = f"the server framed its answer in a way that is not safe: {coding[:40]!r}"
            raise Unusable(message)
        if self.status in _NO_CONTENT:
            self.is_whole = True
        elif coding:
            self._step = self._read_chunk_size
        elif length:
            if not _LENGTH.fullmatch(length.encode("latin-1")):
                message = f"the server's Content-Length is no number: {length[:40]!r}"
                raise Unusable(message)
            self._begin_length(int(length))
        else:
            self._step = self._read_to_end
            self.keeps_alive = False

    def _begin_length(self, length: int) -> None:
        self._left = length
        self.is_whole = length == 0
        # A refusal is cut instead.
        if not self.is_refusal and length > self._limit:
            raise self._too_long()
        self._step = self._read_length

    def _read_length(self, data: bytes) -> bytes | None:
        taken = data[: self._left] if len(data) > self._left else data
        self._left -= len(taken)
        self._keep(taken)
        self.is_whole = self.is_whole or self._left == 0
        return data[len(taken) :] or None

    def _read_to_end(self, data: bytes) -> bytes | None:
        self._keep(data)
        return None

    def _read_chunk_size(self, data: bytes) -> bytes | None:
        found = _CHUNK_SIZE.match(data)
        if found is None:
            self._wait_for_line(data)
            return None
        self._left = int(found[1], 16)
        self._step = self._read_chunk if self._left else self._read_trailer
        return data[found.end() :]

    def _read_chunk(self, data: bytes) -> bytes | None:
        if not data:
            return None
        taken = data[: self._left]
        self._left -= len(taken)
        self._keep(taken)
        if self._left == 0:
            self._step = self._read_chunk_end
        return data[len(taken) :]

    def _read_chunk_end(self, data: bytes) -> bytes | None:
        if len(data) < 2 and b"\r\n".startswith(data):  # noqa: PLR2004 - the line break's length
            self._buffer = data
            return None
        if not data.startswith(b"\r\n"):
            raise Unusable(_BAD_CHUNK)
        self._step = self._read_chunk_size
        return data[2:]

    def _read_trailer(self, data: bytes) -> bytes | None:
        """Skip trailer fields: nobody reads them."""
        line, found, rest = data.partition(b"\r\n")
        if not found:
            self._wait_for_line(data)
            return None
        self._size += len(line)
        if self._size > self._limit + self._limits.head_bytes:
            raise self._too_long()
        self.is_whole = not line
        return rest

    def _wait_for_line(self, data: bytes) -> None:
        if b"\n" in data or len(data) > _MAX_LINE_BYTES:
            raise Unusable(_BAD_CHUNK)
        self._buffer = data

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            if not self.is_refusal:
                raise self._too_long()
            piece = piece[: len(piece) - (self._size - self._limit)]
            self.is_whole, self.keeps_alive = True, False
        if piece:
            self.pieces.append(piece)

    def _too_long(self) -> TooLong:
        return TooLong(f"the server's answer is longer than {self._limit} bytes")


_NO_HTTP = "the server's answer is no HTTP/1.1"
_BAD_CHUNK = "the server's chunks are malformed"


def _usual_length(block: bytes) -> int | None:
    """Return the Content-Length of an answer that says nothing else about its framing, as nearly all do; else None.

    In the time that it takes to read two headers, however many there are.
    """
    lines = b"\r\n" + block.lower()
    for name in _UNUSUAL:
        if name in lines:
            return None
    begin = lines.find(_USUAL)
    if begin < 0:
        return None
    begin += len(_USUAL)
    end = lines.find(b"\r\n", begin)
    digits = lines[begin:end].strip(b" \t")
    # A second length is for whoever reads all of them.
    return int(digits) if _LENGTH.fullmatch(digits) and lines.find(_USUAL, end) < 0 else None


def read_headers(block: bytes) -> Headers:
    """Read header lines; two of a name are joined by a comma (RFC 9110, 5.3)."""
    headers = Headers()
    for line in block.decode("latin-1").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        # Joined, as RFC 9110 5.3 has it: a second Content-Length then is no number and is refused.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
