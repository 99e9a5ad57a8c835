"""Verifies signatures that a template describes, HMAC or public key: pure, over raw header lines and the raw body.

Strict on purpose: what a reader could take in two ways is refused. An HMAC is never decoded; the expected one is
encoded and compared in constant time, so that odd base64 or hex cannot match.
The senders' own libraries are not used: they crash on bytes that are not text, and accept odd timestamps and base64
(tests/suites/signatures.py holds them against this module).
"""

import base64
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from contracts.errors import ConfigError, InvalidPayload
from contracts.settings import HmacTemplate, PublicKeyTemplate, SignatureTemplate
from contracts.settings.signing import SIGNED_NAMES
from gateways.ingress.header_lines import HeaderLines
from gateways.ingress.keys import Key
from gateways.ingress.schemes import Scheme
from gateways.ingress.verifying import (
    ID,
    Detail,
    Incoming,
    Verified,
    check_stamp,
    refused,
    single,
    why_not_now,
)

# Rotation needs two or three; a flood of them costs one comparison each and no more than this.
MAX_SIGNATURES = 16
_BODY = ("body",)
_FIELD = re.compile(rf"\{{({'|'.join(SIGNED_NAMES)})\}}")

Template = HmacTemplate | PublicKeyTemplate
# By the prefix of a template: what stands in front of its signatures.
Prefixes = tuple[tuple[str, bytes], ...]


class _Held(NamedTuple):
    """A key, and the template by which its signatures are written."""

    key: Key
    template: Template

    def fits(self, text: bytes, candidates: Sequence[bytes], secret: bytes | None = None) -> bool:
        """Tell whether one of the signatures is this key's, or one of another reading of its secret."""
        if isinstance(self.template, PublicKeyTemplate):
            # Here, since it takes the crypto library, which only these sources need; see keys.py.
            from gateways.ingress.public_keys import is_signed_with

            return self.key.public is not None and is_signed_with(
                self.key.public, text, candidates, self.template.encoding
            )
        digest = hmac.digest(self.key.secret if secret is None else secret, text, self.template.algorithm)
        expected = digest.hex().encode() if self.template.encoding == "hex" else base64.b64encode(digest)
        # All are compared, so that the time tells nothing about which one came close.
        matching = 0
        for candidate in candidates:
            matching += hmac.compare_digest(candidate, expected)
        return matching > 0


class SignatureVerifier:
    """Verifies webhooks by the template of a scheme.

    Args:
        scheme: how the sender signs; it has a template.
        keys: the source's keys, retired and future ones included.
        url: of the source, as the sender knows it.
        where: the source, for messages.

    Raises:
        ConfigError: the signed text is ambiguous, or the scheme is none of a template.
    """

    def __init__(self, scheme: Scheme, keys: Sequence[Key], url: str | None = None, where: str = "hmac") -> None:
        if scheme.template is None:
            message = f"{where}: has no template"
            raise ConfigError(message)
        self._template: Template = scheme.template
        self._twins: Mapping[bytes, bytes] = scheme.twins
        self._twin_names = frozenset(scheme.twins.values())
        self._value = self._own_or_twin if scheme.reads_twins else single
        second = scheme.also or scheme.template
        self._held = [_Held(key, scheme.template if key.public is None else second) for key in keys]
        self._prefixes = _prefixes(scheme.template, {held.template.prefix for held in self._held})
        self._parts = _split_signed(scheme.template.signed, where, (url or "").encode())
        self._id_separator = _separator_after_id(self._parts, where)
        self._signs_id = self._id_separator is not None
        self._signature_header = self._template.signature_header.encode()
        self._timestamp_header = _encoded(self._template.timestamp_header)
        self._id_header = _encoded(self._template.id_header)
        signed = (self._timestamp_header, self._id_header if self._signs_id else None)
        self._signed_headers = frozenset(name for name in signed if name)
        self._has_stamp = bool(self._timestamp_header or self._template.timestamp_pair)

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`."""
        template = self._template
        if self._twins:
            self._refuse_twins(request.headers)
        line = self._value(request.headers, self._signature_header)
        if line is None:
            raise refused(detail="missing_header")
        stamp, candidates = _read_signature_line(template, line, self._prefixes)
        if self._timestamp_header:
            stamp = self._value(request.headers, self._timestamp_header)
        event_id = self._event_id(request.headers)
        timestamp = None
        if self._has_stamp:
            timestamp = check_stamp(stamp, now.timestamp(), template.tolerance_s, template.timestamp_unit)
        if not any(candidates.values()):
            raise refused(detail="malformed")
        text = self._signed_text(event_id, stamp, request.body)
        key_id = self._matching_key(candidates, text, now)
        # By the scheme, not by the request: who repeats one may leave its id out, too.
        signs_id = self._signs_id or self._id_header is None
        return Verified(
            key_id, event_id.decode() if event_id else None, timestamp, text, signs_id, self._signed_headers
        )

    def _own_or_twin(self, headers: HeaderLines, name: bytes) -> bytes | None:
        """Return the value of a header, or of its twin where that may stand in."""
        value = single(headers, name)
        if value is None and name in self._twins:
            return single(headers, self._twins[name])
        return value

    def _refuse_twins(self, headers: HeaderLines) -> None:
        if not any(line in self._twin_names for line, _ in headers):
            return
        for name, twin in self._twins.items():
            values = {value for line, value in headers if line in {name, twin}}
            if len(values) > 1:
                message = f"headers {name.decode()} and {twin.decode()} differ or repeat"
                raise InvalidPayload(message)

    def _event_id(self, headers: HeaderLines) -> bytes | None:
        if not self._id_header:
            return None
        value = self._value(headers, self._id_header)
        if not self._signs_id:
            return value if value and ID.fullmatch(value) else None
        if value is None:
            raise refused(detail="missing_header")
        if not ID.fullmatch(value) or (self._id_separator and self._id_separator in value):
            # An id with the separator in it shifts the boundary of what was signed.
            raise refused(detail="malformed_id")
        return value

    def _signed_text(self, event_id: bytes | None, stamp: bytes | None, body: bytes) -> bytes:
        if self._parts == _BODY:
            return body
        fields = {"id": event_id or b"", "timestamp": stamp or b"", "body": body}
        return b"".join([part if isinstance(part, bytes) else fields[part] for part in self._parts])

    def _matching_key(self, candidates: Mapping[str, Sequence[bytes]], text: bytes, now: datetime) -> str:
        for held in self._held:
            key, found = held.key, candidates[held.template.prefix]
            # Most keys have no limits: they do not pay for the question.
            is_valid = (key.not_before is None and key.not_after is None) or key.is_valid_at(now)
            if found and is_valid and held.fits(text, found):
                return key.id
        raise refused(detail=self._why_wrong(candidates, text, now))

    def _why_wrong(self, candidates: Mapping[str, Sequence[bytes]], text: bytes, now: datetime) -> Detail:
        """Return the private reason: a key outside its time, or a key used undecoded, is worth telling apart."""
        for held in self._held:
            key, found = held.key, candidates[held.template.prefix]
            if not key.is_valid_at(now) and held.fits(text, found):
                return why_not_now(key, now)
            if key.public is None and key.text != key.secret and held.fits(text, found, key.text):
                return "secret_not_decoded"
        return "wrong_signature"


def _encoded(name: str | None) -> bytes | None:
    return None if name is None else name.encode()


def _split_signed(signed: str, where: str, url: bytes) -> tuple[str | bytes, ...]:
    """Return literals, and the URL, as bytes, and other fields as their names."""
    pieces = _FIELD.split(signed)
    parts = [piece if index % 2 else piece.encode() for index, piece in enumerate(pieces)]
    fields = pieces[1::2]
    if len(set(fields)) != len(fields) or any(
        b"{" in part or b"}" in part for part in parts if isinstance(part, bytes)
    ):
        message = f"{where}: `signed` may have {{id}}, {{timestamp}}, {{url}} and {{body}} once each, no other braces"
        raise ConfigError(message)
    return tuple(url if part == "url" else part for part in parts if part != b"")


def _separator_after_id(parts: Sequence[str | bytes], where: str) -> bytes | None:
    if "id" not in parts:
        return None
    following = parts[parts.index("id") + 1]
    if not isinstance(following, bytes):
        message = f"{where}: `signed` needs a separator after {{id}}, or its end could be moved"
        raise ConfigError(message)
    return following[:1]


def _read_signature_line(
    template: SignatureTemplate, line: bytes, prefixes: Prefixes
) -> tuple[bytes | None, Mapping[str, Sequence[bytes]]]:
    """Return the stamp, where the line carries it, and by prefix the candidates; other versions are passed over."""
    if template.layout == "plain":
        return None, _candidates(prefixes, (line,))
    if template.layout == "list":
        entries = line.split(b" ", MAX_SIGNATURES)[:MAX_SIGNATURES]
        return None, _candidates(prefixes, entries)
    pairs = line.split(template.pair_separator.encode(), MAX_SIGNATURES + 1)[: MAX_SIGNATURES + 1]
    name = f"{template.timestamp_pair}=".encode()
    stamps = [pair[len(name) :] for pair in pairs if pair.startswith(name)] if template.timestamp_pair else []
    if len(stamps) > 1:
        message = f"two {template.timestamp_pair}= in header {template.signature_header}"
        raise InvalidPayload(message)
    return stamps[0] if stamps else None, _candidates(prefixes, pairs)


def _prefixes(template: Template, texts: Iterable[str]) -> Prefixes:
    end = "=" if template.layout == "pairs" else ""
    return tuple((text, (text + end).encode()) for text in texts)


def _candidates(prefixes: Prefixes, entries: Sequence[bytes]) -> Mapping[str, Sequence[bytes]]:
    found: dict[str, list[bytes]] = {}
    for text, prefix in prefixes:
        size = len(prefix)
        found[text] = [entry[size:] for entry in entries if entry.startswith(prefix) and len(entry) > size]
    return found
