"""Splits a byte stream of server-sent events into their data; lines end with CRLF, LF or CR.

Source: WHATWG HTML, "Server-sent events", 9.2.6 (checked 2026-11).
"""

from collections.abc import Iterator

from contracts.errors import ProviderUnavailable

_MARK = b"\xef\xbb\xbf"


class EventSplitter:
    """Feeds on bytes in pieces of any size, yields the `data` of complete events."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max_event_bytes = max_event_bytes
        self._has_begun = False
        self._ends_with_cr = False
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yield the data of the events that this piece completes.

        Raises:
            ProviderUnavailable: an event is longer than the limit.
        """
        if not piece:
            return
        if self._ends_with_cr:
            # That CR has ended its line already: an event need not wait for a LF that may never come.
            piece = piece.removeprefix(b"\n")
        text = self._rest + piece
        self._ends_with_cr = text.endswith(b"\r")
        lines = text.splitlines()
        self._rest = lines.pop() if lines and not text.endswith((b"\n", b"\r")) else b""
        self._check(len(self._rest))
        for line in lines:
            data = self._line(line)
            if data is not None:
                yield data

    def _line(self, line: bytes) -> bytes | None:
        """Take one line; return the event's data when it ends one."""
        if not self._has_begun:
            # A byte order mark is no part of the first line, which may be data.
            line, self._has_begun = line.removeprefix(_MARK), True
        if not line:
            data, self._data, self._size = self._data, [], 0
            # An event whose data is empty is none: some servers send them so that nobody thinks them gone.
            return b"\n".join(data) or None
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
            self._check(self._size)
        return None

    def finish(self) -> bytes | None:
        """Return the data of a last event whose closing blank line is missing."""
        if self._rest:
            self._line(self._rest)
        self._rest = b""
        return self._line(b"")

    def _check(self, size: int) -> None:
        if size > self._max_event_bytes:
            message = f"the server sent an event of more than {self._max_event_bytes} bytes"
            raise ProviderUnavailable(message, possibly_billed=True)
