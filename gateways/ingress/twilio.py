"""Verifies Twilio's webhooks: the URL as configured with the form's parameters, or with a hash of the body.

A form's names and values are signed without anything between them, so the signature does not tell `a=bc` from `ab=c`:
that is Twilio's scheme. Whatever else of the body is not in the signed text is refused.

Source: Twilio "Webhooks security", twilio-python 9.13 `RequestValidator` (checked 2026-11).
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from urllib.parse import unquote_to_bytes, urlsplit

from contracts.errors import InvalidPayload
from contracts.settings.signing import TwilioSettings
from gateways.ingress.keys import Key
from gateways.ingress.verifying import ID, Incoming, Verified, key_in_time, refused, single

SIGNATURE = b"x-twilio-signature"
SETTINGS = b"x-twilio-webhooks-signature-settings"
_ID_HEADER = b"i-twilio-idempotency-token"
_BODY_HASH = re.compile(rb"(?:(.*)&)?bodySHA256=([0-9a-f]{64})")
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# A message with ten pictures has some sixty parameters.
_MAX_PARAMETERS = 500
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ALGORITHMS: dict[bytes, Literal["sha1", "sha256"]] = {b"HMAC_SHA1": "sha1", b"HMAC_SHA256": "sha256"}


class TwilioVerifier:
    """Verifies one Twilio source.

    Args:
        settings: which hashes count.
        url: of the source, as configured at Twilio, query included.
        keys: auth tokens and, for sha256, shared keys; retired and future ones included.
    """

    def __init__(self, settings: TwilioSettings, url: str, keys: Sequence[Key]) -> None:
        self._algorithms = settings.algorithms
        self._keys = tuple(keys)
        # Twilio writes the port of its scheme or leaves it out, as it likes.
        self._urls = [variant.encode() for variant in _with_and_without_port(url)]
        self._query = urlsplit(url).query.encode()

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`; the id is not signed."""
        signature = single(request.headers, SIGNATURE)
        if signature is None:
            raise refused(detail="missing_header")
        algorithm = self._algorithm(single(request.headers, SETTINGS))
        tail = self._tail(request)
        texts = [url + tail for url in self._urls]
        matching = [key for key in self._keys if _is_signed_with(key.secret, texts, algorithm, signature)]
        event_id = _clean_id(request)
        # What is covered, without the URL's two spellings: one delivery, one text.
        # A form may be written anew, with its parameters in another order, and still fit.
        is_exact = request.query != self._query
        return Verified(key_in_time(matching, now).id, event_id, signed=texts[0], is_body_exact=is_exact)

    def _algorithm(self, line: bytes | None) -> Literal["sha1", "sha256"]:
        """Return the hash that the request asks for, if the source allows it: a header must not choose a weaker one."""
        named = _ALGORITHMS[b"HMAC_SHA1"]
        if line is not None:
            pairs = [part.strip().partition(b"=") for part in line.split(b",")]
            found = [value.strip() for name, _, value in pairs if name.strip() == b"algorithm"]
            if len(found) > 1:
                message = f"two algorithms in header {SETTINGS.decode()}"
                raise InvalidPayload(message)
            if found and found[0] not in _ALGORITHMS:
                raise refused(detail="algorithm_not_enabled")
            named = _ALGORITHMS[found[0]] if found else named
        if named not in self._algorithms:
            raise refused(detail="algorithm_not_enabled")
        return named

    def _tail(self, request: Incoming) -> bytes:
        """Return what is signed behind the configured URL."""
        if request.query == self._query:
            return _parameters(request.body)
        match = _BODY_HASH.fullmatch(request.query)
        if match is None or (match[1] or b"") != self._query:
            # Only the query at Twilio counts, as it stands there: else text could move between URL and parameters.
            raise refused(detail="url_differs")
        if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), match[2]):
            raise refused(detail="body_hash_differs")
        return (b"&" if self._query else b"?") + b"bodySHA256=" + match[2]


def _parameters(body: bytes) -> bytes:
    """Return the sorted, unique parameters of a form, names and values without separators.

    Raises:
        BadSignature: it is no form, so that a part of it would not be signed.
    """
    if not body:
        return b""
    pieces = body.split(b"&", _MAX_PARAMETERS)
    if len(pieces) > _MAX_PARAMETERS or any(b"=" not in piece or _PERCENT.search(piece) for piece in pieces):
        raise refused(detail="malformed_form")
    try:
        pairs = {tuple(_decoded(part) for part in piece.split(b"=", 1)) for piece in pieces}
    except UnicodeDecodeError as error:
        raise refused(detail="malformed_form") from error
    return "".join(name + value for name, value in sorted(pairs)).encode()


def _decoded(part: bytes) -> str:
    return unquote_to_bytes(part.replace(b"+", b" ")).decode()


def _clean_id(request: Incoming) -> str | None:
    value = single(request.headers, _ID_HEADER)
    return value.decode() if value and ID.fullmatch(value) else None


def _is_signed_with(secret: bytes, texts: Sequence[bytes], algorithm: str, signature: bytes) -> bool:
    expected = [base64.b64encode(hmac.digest(secret, text, algorithm)) for text in texts]
    matches = [hmac.compare_digest(one, signature) for one in expected]
    return any(matches)


def _with_and_without_port(url: str) -> list[str]:
    """Return the URL as it is, without a port, and with one."""
    parts = urlsplit(url)
    host, _, _ = parts.netloc.partition(":")
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    variants = (parts.netloc, host, f"{host}:{port}")
    return list(dict.fromkeys(url.replace(parts.netloc, netloc, 1) for netloc in variants))
