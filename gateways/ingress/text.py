"""Reads text from outside: what may become an attribute of an event, and what may not."""

import base64
import hashlib
import re

from gateways.ingress.header_lines import HeaderLines, Lines

# CloudEvents leaves lengths open; these keep headers and logs small.
MAX_ID_CHARS = 256
MAX_ATTRIBUTE_CHARS = 1024
_ENCODED_CONTROL = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")


def is_clean(text: str, max_chars: int = MAX_ID_CHARS) -> bool:
    """Tell whether a text is not empty, not too long, and free of control characters and lone surrogates.

    Percent-encoded ones count too: CloudEvents over HTTP decodes attributes, so the next one to read them may.
    """
    return 0 < len(text) <= max_chars and text.isprintable() and not ("%" in text and _ENCODED_CONTROL.search(text))


def bounded_key(text: str) -> str:
    """Return a partition key as it is, or its digest when it is too long or not clean: equal keys stay equal."""
    if is_clean(text):
        return text
    return "sha256-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def decode(raw: bytes) -> str | None:
    """Return a header's text; None when it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def single_header(headers: HeaderLines, name: bytes) -> str | None:
    """Return the text of a header that stands there once; None when it is missing, repeated or not UTF-8."""
    if type(headers) is Lines:
        value = headers.once.get(name)
        return None if value is None else decode(value)
    values = [value for line, value in headers if line == name]
    return decode(values[0]) if len(values) == 1 else None


def decode_base64(text: bytes) -> bytes:
    """Decode base64; some senders show their keys without the padding, which loses nothing.

    Raises:
        ValueError: it is not base64.
    """
    return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
