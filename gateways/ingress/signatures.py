"""Verifies HMAC signatures of webhooks: pure functions over raw header lines and the raw body.

Strict on purpose: what a reader could take in two ways is refused. Signatures are never decoded; the expected one is
encoded and compared in constant time, so that odd base64 or hex cannot match.
The senders' own libraries are not used: they crash on bytes that are not text, and accept odd timestamps and base64
(tests/suites/signatures.py holds them against this module).
"""

import base64
import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from contracts.errors import BadSignature, ConfigError, InvalidPayload
from contracts.settings import HmacTemplate
from gateways.ingress.keys import Key

HeaderLines = Sequence[tuple[bytes, bytes]]

# Rotation needs two or three; a flood of them costs one comparison each and no more than this.
MAX_SIGNATURES = 16
MAX_ID_CHARS = 256
_STAMP = re.compile(rb"[1-9][0-9]{0,11}")
_STAMP_MS = re.compile(rb"[1-9][0-9]{12}")
_ID = re.compile(rb"[\x21-\x7e]{1,256}")
_FIELD = re.compile(r"\{(id|timestamp|body)\}")


# Private reasons of a 401: log field and metric label, never part of the answer.
Detail = Literal[
    "missing_header", "missing_timestamp", "malformed", "malformed_id", "malformed_timestamp", "stamp_in_ms", "stale",
    "in_future", "wrong_signature", "retired_key", "key_not_yet_valid", "secret_not_decoded",
]  # fmt: skip


class Verified(NamedTuple):
    """What a good signature vouches for.

    Attributes:
        id: value of the template's id header, which the signature covers only if the signed text has {id}.
        timestamp: the sender's time, Unix seconds.
    """

    key_id: str
    id: str | None
    timestamp: int | None


class Verifier:
    """Verifies one source's webhooks.

    Args:
        template: how the sender signs.
        keys: the source's keys, retired and future ones included.
        twins: pairs of header names of which a request may not carry both with different values.
        where: the source, for messages.

    Raises:
        ConfigError: the signed text is ambiguous.
    """

    def __init__(
        self,
        template: HmacTemplate,
        keys: Sequence[Key],
        twins: Sequence[tuple[bytes, bytes]] = (),
        where: str = "hmac",
    ) -> None:
        self._template = template
        self._keys = tuple(keys)
        self._twins = twins
        self._parts = _split_signed(template.signed, where)
        self._id_separator = _separator_after_id(self._parts, where)
        self._signs_id = self._id_separator is not None

    def verify(self, headers: HeaderLines, body: bytes, now: datetime) -> Verified:
        """Return what the signature vouches for.

        Raises:
            BadSignature: with the private reason; the caller's answer never tells it.
            InvalidPayload: a header that must be unique stands there twice.
        """
        self._refuse_twins(headers)
        template = self._template
        line = _single(headers, template.signature_header)
        if line is None:
            raise _refused(detail="missing_header")
        stamp, candidates = _read_signature_line(template, line)
        if template.timestamp_header:
            stamp = _single(headers, template.timestamp_header)
        event_id = self._event_id(headers)
        timestamp = None
        if template.timestamp_header or template.timestamp_pair:
            timestamp = _check_stamp(stamp, now.timestamp(), template.tolerance_s)
        if not candidates:
            raise _refused(detail="malformed")
        text = self._signed_text(event_id, stamp, body)
        key_id = self._matching_key(candidates, text, now)
        return Verified(key_id, event_id.decode() if event_id else None, timestamp)

    def _refuse_twins(self, headers: HeaderLines) -> None:
        for name, twin in self._twins:
            values = {value for line, value in headers if line in {name, twin}}
            if len(values) > 1:
                message = f"headers {name.decode()} and {twin.decode()} differ or repeat"
                raise InvalidPayload(message)

    def _event_id(self, headers: HeaderLines) -> bytes | None:
        if not self._template.id_header:
            return None
        value = _single(headers, self._template.id_header)
        if not self._signs_id:
            return value if value and _ID.fullmatch(value) else None
        if value is None:
            raise _refused(detail="missing_header")
        if not _ID.fullmatch(value) or (self._id_separator and self._id_separator in value):
            # An id with the separator in it shifts the boundary of what was signed.
            raise _refused(detail="malformed_id")
        return value

    def _signed_text(self, event_id: bytes | None, stamp: bytes | None, body: bytes) -> bytes:
        fields = {"id": event_id or b"", "timestamp": stamp or b"", "body": body}
        return b"".join(part if isinstance(part, bytes) else fields[part] for part in self._parts)

    def _matching_key(self, candidates: Sequence[bytes], text: bytes, now: datetime) -> str:
        valid = [key for key in self._keys if key.is_valid_at(now)]
        for key in valid:
            if self._is_signed_with(key.secret, text, candidates):
                return key.id
        raise _refused(detail=self._why_wrong(candidates, text, now))

    def _why_wrong(self, candidates: Sequence[bytes], text: bytes, now: datetime) -> Detail:
        """Return the private reason: a key outside its time, or a key used undecoded, is worth telling apart."""
        for key in self._keys:
            if not key.is_valid_at(now) and self._is_signed_with(key.secret, text, candidates):
                return "retired_key" if key.not_after is not None and key.not_after < now else "key_not_yet_valid"
            if key.text != key.secret and self._is_signed_with(key.text, text, candidates):
                return "secret_not_decoded"
        return "wrong_signature"

    def _is_signed_with(self, secret: bytes, text: bytes, candidates: Sequence[bytes]) -> bool:
        expected = _encode(hmac.digest(secret, text, self._template.algorithm), self._template.encoding)
        matches = [hmac.compare_digest(candidate, expected) for candidate in candidates]
        return any(matches)


def verify(
    template: HmacTemplate, keys: Sequence[Key], headers: HeaderLines, body: bytes, now: datetime | None = None
) -> Verified:
    """Verify one request; `Verifier` does the same and prepares the template once.

    Raises:
        BadSignature: missing, malformed, stale or wrong.
        InvalidPayload: a header that must be unique stands there twice.
        ConfigError: the template is ambiguous.
    """
    return Verifier(template, keys).verify(headers, body, now or datetime.now(UTC))


def _refused(detail: Detail) -> BadSignature:
    return BadSignature(detail)


def _split_signed(signed: str, where: str) -> tuple[str | bytes, ...]:
    """Return literals as bytes and fields as their names."""
    pieces = _FIELD.split(signed)
    parts = [piece if index % 2 else piece.encode() for index, piece in enumerate(pieces)]
    fields = pieces[1::2]
    if len(set(fields)) != len(fields) or any(
        b"{" in part or b"}" in part for part in parts if isinstance(part, bytes)
    ):
        message = f"{where}: `signed` may have {{id}}, {{timestamp}} and {{body}} once each, and no other braces"
        raise ConfigError(message)
    return tuple(part for part in parts if part != b"")


def _separator_after_id(parts: Sequence[str | bytes], where: str) -> bytes | None:
    if "id" not in parts:
        return None
    following = parts[parts.index("id") + 1]
    if not isinstance(following, bytes):
        message = f"{where}: `signed` needs a separator after {{id}}, or its end could be moved"
        raise ConfigError(message)
    return following[:1]


def _single(headers: HeaderLines, name: str) -> bytes | None:
    """Return the value of a header that may stand there once; an empty one counts as missing."""
    wanted = name.encode()
    values = [value for line, value in headers if line == wanted]
    if len(values) > 1:
        message = f"header {name} stands there twice"
        raise InvalidPayload(message)
    return values[0] if values and values[0] else None


def _read_signature_line(template: HmacTemplate, line: bytes) -> tuple[bytes | None, list[bytes]]:
    """Return the stamp, where the line carries it, and the candidates; entries of other versions are passed over."""
    prefix = template.prefix.encode()
    if template.layout == "plain":
        return None, [line[len(prefix) :]] if line.startswith(prefix) and len(line) > len(prefix) else []
    if template.layout == "list":
        return None, _behind(prefix, line.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES])
    pairs = line.split(b",", MAX_SIGNATURES + 1)[: MAX_SIGNATURES + 1]
    name = f"{template.timestamp_pair}=".encode()
    stamps = [pair[len(name) :] for pair in pairs if pair.startswith(name)] if template.timestamp_pair else []
    if len(stamps) > 1:
        message = f"two {template.timestamp_pair}= in header {template.signature_header}"
        raise InvalidPayload(message)
    return stamps[0] if stamps else None, _behind(prefix + b"=", pairs)


def _behind(prefix: bytes, entries: Iterable[bytes]) -> list[bytes]:
    return [entry[len(prefix) :] for entry in entries if entry.startswith(prefix) and len(entry) > len(prefix)]


def _check_stamp(stamp: bytes | None, now_s: float, tolerance_s: float) -> int:
    if not stamp:
        raise _refused(detail="missing_timestamp")
    if not _STAMP.fullmatch(stamp):
        raise _refused(detail="stamp_in_ms" if _STAMP_MS.fullmatch(stamp) else "malformed_timestamp")
    seconds = int(stamp)
    if seconds < now_s - tolerance_s:
        raise _refused(detail="stale")
    if seconds > now_s + tolerance_s:
        raise _refused(detail="in_future")
    return seconds


def _encode(digest: bytes, encoding: str) -> bytes:
    return digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)
