"""Says of the bytes of a connection how many accepted requests they can hold: a second reader, lenient on purpose.

It reads whatever any server might read, so that it errs towards "could be a request"; whether that is authentic it
decides strictly, by the senders' own rules.
"""

import re

from tests.hostile.mutations import CALLER_PATH
from tests.hostile.senders import API_KEY, RAW_SECRET, SENDERS, Lines

_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\n]*)?\r?\n")
_BY_PATH = {b"/webhooks/" + sender.source: sender for sender in SENDERS}


def authentic_requests(sent: bytes, now_s: float) -> int:
    """Return how many requests in these bytes are whole, well addressed, and signed."""
    return sum(is_authentic(*parsed, now_s=now_s) for parsed in _requests(sent))


def is_authentic(method: bytes, path: bytes, lines: Lines, body: bytes, *, now_s: float) -> bool:
    """Tell whether a request proves who sent it."""
    path = path.partition(b"?")[0].partition(b"#")[0]
    if method != b"POST":
        return False
    if path == CALLER_PATH:
        values = [value for name, value in lines if name == b"authorization"]
        return len(values) == 1 and values[0][:7].lower() == b"bearer " and values[0][7:].strip() == API_KEY.encode()
    sender = _BY_PATH.get(path)
    return sender is not None and sender.is_authentic(lines, body, RAW_SECRET, now_s)


def _requests(sent: bytes) -> list[tuple[bytes, bytes, Lines, bytes]]:
    found: list[tuple[bytes, bytes, Lines, bytes]] = []
    while True:
        sent = sent.lstrip(b"\r\n")
        end = _HEAD_END.search(sent)
        if end is None:
            return found
        first, *rest = _LINE_END.split(sent[: end.start()])
        lines = [_line(line) for line in rest]
        read = _body(lines, sent[end.end() :])
        method, _, target = first.partition(b" ")
        if read is None or not target:
            return found
        body, sent = read
        found.append((method, _path(target.rpartition(b" ")[0].strip()), lines, body))


def _line(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t")


def _path(target: bytes) -> bytes:
    """Return the path of a target, also of one in absolute form."""
    return re.sub(rb"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", b"", target)


def _body(lines: Lines, rest: bytes) -> tuple[bytes, bytes] | None:
    """Return a body and what stands behind it; None when it is not whole."""
    if any(name == b"transfer-encoding" for name, _ in lines):
        return _chunks(rest)
    lengths = {value for name, value in lines if name == b"content-length"}
    if not lengths:
        return b"", rest
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length) or int(length) > len(rest):
        return None
    return rest[: int(length)], rest[int(length) :]


def _chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while found := _CHUNK.match(rest):
        size = int(found[1], 16)
        chunk, rest = rest[found.end() : found.end() + size], rest[found.end() + size :]
        if not size:
            trailer = re.match(rb"(?:[^\r\n]+\r?\n)*\r?\n", rest)
            return (body, rest[trailer.end() :]) if trailer else None
        if len(chunk) < size:
            return None
        body, rest = body + chunk, rest.removeprefix(b"\r").removeprefix(b"\n")
    return None
