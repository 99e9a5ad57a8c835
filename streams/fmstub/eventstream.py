"""Encodes application/vnd.amazon.eventstream frames, which botocore can only decode.

Source: AWS SDK design documents, "Amazon Event Stream Specification" (checked 2026-11); tests decode with botocore.
"""

import json
import struct
import zlib
from typing import Any

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">II")
_CRC = struct.Struct(">I")
_STRING = 7
# Real frames carry a padding key of changing length, against guessing tokens from frame sizes; clients ignore it.
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one frame with its two checksums."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    prelude = _PRELUDE.pack(len(encoded) + len(payload) + 16, len(encoded))
    body = prelude + _CRC.pack(zlib.crc32(prelude)) + encoded + payload
    return body + _CRC.pack(zlib.crc32(body))


def _header(name: str, value: str) -> bytes:
    raw_name, raw_value = name.encode(), value.encode()
    return struct.pack(">B", len(raw_name)) + raw_name + struct.pack(">BH", _STRING, len(raw_value)) + raw_value


def event(kind: str, payload: dict[str, Any], number: int = 0) -> bytes:
    """Return an event frame, padded to a length that depends on its number."""
    padded = payload | {"p": _PADDING[: 2 + (number * 7 + 11) % (len(_PADDING) - 2)]}
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(padded, ensure_ascii=False).encode("utf-8", "replace"))


def exception(kind: str, message: str) -> bytes:
    """Return an exception frame; `kind` is camelCase, such as `modelStreamErrorException`."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())
