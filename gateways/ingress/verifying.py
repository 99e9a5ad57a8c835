"""What every scheme's verifier takes and returns, and what the verifiers share: strict readers of header lines."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from contracts.errors import BadSignature, InvalidPayload
from gateways.ingress.header_lines import HeaderLines, Lines
from gateways.ingress.keys import Key

# Private reasons of a 401: log field and metric label, never part of the answer.
Detail = Literal[
    "missing_header", "missing_timestamp", "malformed", "malformed_id", "malformed_timestamp", "stamp_in_ms", "stale",
    "in_future", "wrong_signature", "retired_key", "key_not_yet_valid", "secret_not_decoded", "unknown_key",
    "algorithm_not_enabled", "url_differs", "body_hash_differs", "malformed_form", "component_not_covered",
    "digest_missing", "digest_differs", "untrusted_peer", "wrong_proof", "unknown_subject",
    "body_reserialised", "body_line_end", "body_charset", "signature_spelling", "signature_encoding",
    "signature_prefix", "not_notifications", "missing_client_state", "wrong_client_state",
]  # fmt: skip

# Encoded control characters are none yet; behind whoever decodes them they would be.
ID = re.compile(rb"(?:(?!%[01][0-9A-Fa-f]|%7[Ff])[\x21-\x7e]){1,256}")
_STAMP = re.compile(rb"[1-9][0-9]{0,11}")
_STAMP_MS = re.compile(rb"[1-9][0-9]{12}")


class Incoming(Struct, frozen=True):
    """A request that has not been verified.

    Attributes:
        headers: names in lower case, values as they came.
        body: byte for byte.
        query: of the URL, as it came; nothing else of the URL is believed, since proxies rewrite it.
        peer: address of who connected; empty when unknown.
    """

    headers: HeaderLines
    body: bytes
    query: bytes = b""
    peer: str = ""


class Verified(Struct, frozen=True):
    """What a good signature vouches for.

    Attributes:
        key_id: which key it was.
        id: value of the scheme's id header, if it has one.
        timestamp: the sender's time, Unix seconds.
        signed: the text that the signature covers, the whole body included; None where nothing is signed.
        signs_id: the signature covers `id`, or the scheme has none; otherwise who captured a request can send it again
            under another id, or without one.
        signed_headers: names of the headers whose values the signature covers.
        is_body_exact: no other body has the same signed text; what is read from it, or its digest, is the sender's.
    """

    key_id: str
    id: str | None = None
    timestamp: int | None = None
    signed: bytes | None = None
    signs_id: bool = False
    signed_headers: frozenset[bytes] = frozenset()
    is_body_exact: bool = True


class Verifier(Protocol):
    """Verifies one source's webhooks: pure, does not block, may be called concurrently."""

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """Return what the signature vouches for.

        Raises:
            BadSignature: with the private reason; the caller's answer never tells it.
            InvalidPayload: a header that must be unique stands there twice.
        """
        ...


def refused(detail: Detail, age_s: float | None = None) -> BadSignature:
    """Return the refusal for a private reason."""
    return BadSignature(detail, age_s)


def single(headers: HeaderLines, name: bytes) -> bytes | None:
    """Return the value of a header that may stand there once; an empty one counts as missing.

    Raises:
        InvalidPayload: it stands there twice.
    """
    if type(headers) is Lines:
        value = headers.once.get(name)
        if value is not None or name not in headers.repeated:
            return value or None
    values = [value for line, value in headers if line == name]
    if len(values) > 1:
        message = f"header {name.decode()} stands there twice"
        raise InvalidPayload(message)
    return values[0] if values and values[0] else None


def check_stamp(stamp: bytes | None, now_s: float, tolerance_s: float, unit: Literal["s", "ms"] = "s") -> int:
    """Return the sender's time, Unix seconds.

    Raises:
        BadSignature: missing, not plain digits, or too far off, either way.
    """
    if not stamp:
        raise refused(detail="missing_timestamp")
    is_ms = _STAMP_MS.fullmatch(stamp) is not None
    if unit == "ms":
        if not is_ms:
            raise refused(detail="malformed_timestamp")
        return check_time(int(stamp) // 1000, now_s, tolerance_s)
    if not _STAMP.fullmatch(stamp):
        raise refused(detail="stamp_in_ms" if is_ms else "malformed_timestamp")
    return check_time(int(stamp), now_s, tolerance_s)


def check_time(seconds: int, now_s: float, tolerance_s: float) -> int:
    """Return the sender's time, Unix seconds.

    Raises:
        BadSignature: too far off, either way.
    """
    if seconds < now_s - tolerance_s:
        raise refused(detail="stale", age_s=round(now_s - seconds, 3))
    if seconds > now_s + tolerance_s:
        raise refused(detail="in_future", age_s=round(now_s - seconds, 3))
    return seconds


def why_not_now(key: Key, now: datetime) -> Detail:
    """Return the private reason for a key that fits outside its time."""
    return "retired_key" if key.not_after is not None and key.not_after < now else "key_not_yet_valid"


def key_in_time(matching: Sequence[Key], now: datetime) -> Key:
    """Return the first of some matching keys that counts now.

    Raises:
        BadSignature: there is none.
    """
    for key in matching:
        if key.is_valid_at(now):
            return key
    raise refused(detail=why_not_now(matching[0], now) if matching else "wrong_signature")
