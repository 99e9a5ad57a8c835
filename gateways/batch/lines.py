"""Reads an input of JSON lines, one line in memory at a time.

Blocking: reads a file.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jsonpointer import JsonPointer, JsonPointerException

from contracts.codec import decode_any_json, encodable
from contracts.errors import InvalidPayload, Undecodable

_BLOCK_BYTES = 2**20
_MAX_ID_CHARS = 1024


class Line(NamedTuple):
    """One line that is not blank.

    Attributes:
        number: from 1; blank lines are counted.
        raw: without its line end; cut where the line is too large.
        record_id: its own id as text, or its number.
        key: what keeps it in order; None for no order.
        fault: why it cannot be an event: `not_json`, `too_large`; empty when it can.
        message: the same in words.
    """

    number: int
    raw: bytes
    record_id: str
    key: bytes | None = None
    fault: str = ""
    message: str = ""


class Lines:
    """The lines of a file.

    Args:
        path: the file.
        record_id, partition_key: JSON pointers; empty = none.
        max_bytes: of a line.
    """

    def __init__(self, path: Path, record_id: str, partition_key: str, max_bytes: int) -> None:
        self._path = path
        self._record_id = JsonPointer(record_id) if record_id else None
        self._key = JsonPointer(partition_key) if partition_key else None
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[Line]:
        with self._path.open("rb") as file:
            number = 0
            while raw := file.readline(self._max_bytes + 2):
                number += 1
                is_whole = raw.endswith(b"\n") or len(raw) < self._max_bytes + 2
                text = raw.rstrip(b"\r\n")
                if not is_whole or len(text) > self._max_bytes:
                    while not raw.endswith(b"\n") and (raw := file.readline(_BLOCK_BYTES)):
                        pass
                    message = f"the line is longer than {self._max_bytes} bytes"
                    yield Line(number, text[:_MAX_ID_CHARS], str(number), None, "too_large", message)
                elif text.strip():
                    yield self._line(number, text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text)

    def _line(self, number: int, raw: bytes) -> Line:
        try:
            document = decode_any_json(raw)
        except Undecodable as error:
            return Line(number, raw, str(number), None, "not_json", str(error))
        found = _at(self._record_id, document)
        key = _at(self._key, document)
        return Line(number, raw, str(number) if found is None else found, None if key is None else key.encode())


def _at(pointer: JsonPointer | None, document: object) -> str | None:
    """Return a text or number of a line as text; None for anything else."""
    if pointer is None:
        return None
    try:
        found = pointer.resolve(document)
    except JsonPointerException:
        return None
    is_name = isinstance(found, str | int | float) and not isinstance(found, bool) and found != ""
    return encodable(str(found))[:_MAX_ID_CHARS] if is_name else None


def fingerprint(path: Path) -> tuple[str, int, int]:
    """Return the SHA-256 of a file, its size in bytes, and how many line ends it has at most.

    Raises:
        InvalidPayload: it cannot be read.
    """
    digest, size, ends = hashlib.sha256(), 0, 1
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                ends += block.count(b"\n")
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise InvalidPayload(message) from error
    return digest.hexdigest(), size, ends
