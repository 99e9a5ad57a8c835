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
from datetime import datetime

from contracts.errors import ConfigError, InvalidPayload
from contracts.settings import HmacTemplate
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Detail, HeaderLines, Incoming, Verified, check_stamp, refused, single

# Rotation needs two or three; a flood of them costs one comparison each and no more than this.
MAX_SIGNATURES = 16
MAX_ID_CHARS = 256
_ID = re.compile(rb"[\x21-\x7e]{1,256}")
_FIELD = re.compile(r"\{(id|timestamp|body)\}")


class HmacVerifier:
    """Verifies webhooks that are signed with an HMAC.

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
        signed = (template.timestamp_header, template.id_header if self._signs_id else None)
        self._signed_headers = frozenset(name.encode() for name in signed if name)

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`."""
        headers = request.headers
        self._refuse_twins(headers)
        template = self._template
        line = single(headers, template.signature_header.encode())
        if line is None:
            raise refused(detail="missing_header")
        stamp, candidates = _read_signature_line(template, line)
        if template.timestamp_header:
            stamp = single(headers, template.timestamp_header.encode())
        event_id = self._event_id(headers)
        timestamp = None
        if template.timestamp_header or template.timestamp_pair:
            timestamp = check_stamp(stamp, now.timestamp(), template.tolerance_s)
        if not candidates:
            raise refused(detail="malformed")
        text = self._signed_text(event_id, stamp, request.body)
        key_id = self._matching_key(candidates, text, now)
        return Verified(
            key_id, event_id.decode() if event_id else None, timestamp, text, self._signs_id, self._signed_headers
        )

    def _refuse_twins(self, headers: HeaderLines) -> None:
        for name, twin in self._twins:
            values = {value for line, value in headers if line in {name, twin}}
            if len(values) > 1:
                message = f"headers {name.decode()} and {twin.decode()} differ or repeat"
                raise InvalidPayload(message)

    def _event_id(self, headers: HeaderLines) -> bytes | None:
        if not self._template.id_header:
            return None
        value = single(headers, self._template.id_header.encode())
        if not self._signs_id:
            return value if value and _ID.fullmatch(value) else None
        if value is None:
            raise refused(detail="missing_header")
        if not _ID.fullmatch(value) or (self._id_separator and self._id_separator in value):
            # An id with the separator in it shifts the boundary of what was signed.
            raise refused(detail="malformed_id")
        return value

    def _signed_text(self, event_id: bytes | None, stamp: bytes | None, body: bytes) -> bytes:
        fields = {"id": event_id or b"", "timestamp": stamp or b"", "body": body}
        return b"".join(part if isinstance(part, bytes) else fields[part] for part in self._parts)

    def _matching_key(self, candidates: Sequence[bytes], text: bytes, now: datetime) -> str:
        valid = [key for key in self._keys if key.is_valid_at(now)]
        for key in valid:
            if self._is_signed_with(key.secret, text, candidates):
                return key.id
        raise refused(detail=self._why_wrong(candidates, text, now))

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


def _encode(digest: bytes, encoding: str) -> bytes:
    return digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)
