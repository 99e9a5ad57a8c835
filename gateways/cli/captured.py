"""Reads a captured HTTP request from a file: the bytes as `nc`, tcpdump or a proxy's inspector wrote them.

The reading of HTTP/1.1 is h11's. What captures have and requests have not is told: LF line ends, a line end that an
editor put behind the body, HTTP/2 in the request line.
"""

import re
from typing import NamedTuple

import click
import h11

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_HTTP_2 = re.compile(rb"HTTP/2(\.0)?$")
_MAX_SHOWN_CHARS = 60
_METHOD = re.compile(rb"[A-Z]{3,16} \S+ HTTP/")


class Captured(NamedTuple):
    """A request as it was captured.

    Attributes:
        target: path and query.
        headers: names in lower case.
        remarks: what was read with some goodwill.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    remarks: tuple[str, ...] = ()

    @property
    def query(self) -> bytes:
        """Return the query of the target."""
        return self.target.partition(b"?")[2]


def read_request(raw: bytes, body: bytes | None = None) -> Captured:
    """Return the request in a file; `body` stands in place of what follows its headers.

    Raises:
        click.UsageError: it is none, or its body is not whole; says what to do.
    """
    raw = raw.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    remarks: list[str] = []
    head, rest = _split(raw, remarks)
    connection = h11.Connection(h11.SERVER)
    request = _head_of(connection, head)
    if body is None:
        body = _body_of(connection, request, rest, remarks)
    elif rest.strip():
        remarks.append(f"the {len(rest)} bytes behind the headers are not read, since the body is a file of its own")
    headers = [(bytes(name), bytes(value)) for name, value in request.headers]
    return Captured(request.method.decode(), bytes(request.target), headers, body, tuple(remarks))


def _split(raw: bytes, remarks: list[str]) -> tuple[bytes, bytes]:
    """Return the head, with CR LF, and what follows it."""
    if not _METHOD.match(raw):
        message = (
            "the file does not begin with a request line such as `POST /webhooks/stripe HTTP/1.1`; "
            f"it begins with {raw[:_MAX_SHOWN_CHARS]!r}"
        )
        raise click.UsageError(message)
    end = _HEAD_END.search(raw)
    head, rest = (raw[: end.start()], raw[end.end() :]) if end else (raw.rstrip(b"\r\n"), b"")
    lines = head.replace(b"\r\n", b"\n").split(b"\n")
    if b"\r\n" not in raw[: len(head) + 2]:
        remarks.append("the headers end in LF; a body with line ends may have been changed in the same way")
    if _HTTP_2.search(lines[0]):
        # HTTP/1.0 needs no Host, which HTTP/2 does not have.
        lines[0] = _HTTP_2.sub(b"HTTP/1.0", lines[0])
        remarks.append("the request line says HTTP/2; it is read as the HTTP/1 that a proxy makes of it")
    return b"\r\n".join(lines) + b"\r\n\r\n", rest


def _head_of(connection: h11.Connection, head: bytes) -> h11.Request:
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        message = f"the headers are no HTTP: {error}"
        raise click.UsageError(message) from error
    if not isinstance(event, h11.Request):
        message = "the headers are not whole"
        raise click.UsageError(message)
    return event


def _body_of(connection: h11.Connection, request: h11.Request, rest: bytes, remarks: list[str]) -> bytes:
    names = {bytes(name) for name, _ in request.headers}
    if not names & {b"content-length", b"transfer-encoding"}:
        if rest:
            remarks.append("no Content-Length: everything behind the headers counts as the body, to the last line end")
        return rest
    body = bytearray()
    try:
        connection.receive_data(rest)
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
        if event is h11.NEED_DATA:
            # Raises, with how much is missing.
            connection.receive_data(b"")
            connection.next_event()
    except h11.RemoteProtocolError as error:
        message = (
            f"the body is not whole: {error}\n"
            "Was the capture cut, or were its line ends changed? The body alone can be given with --body FILE."
        )
        raise click.UsageError(message) from error
    left = connection.trailing_data[0]
    if left.strip():
        remarks.append(f"{len(left)} bytes behind the body are not read: Content-Length says where it ends")
    elif left:
        remarks.append("the line end behind the body is not part of it: Content-Length says where it ends")
    return bytes(body)
