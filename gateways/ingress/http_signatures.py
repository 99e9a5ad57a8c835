"""Verifies HTTP Message Signatures with a Content-Digest; structured fields and signature bases are the library's.

Method and URL are ours to say: the method is that of the endpoint, the URL the configured one with the request's query.

Source: RFC 9421, RFC 9530; http-message-signatures 3.0 (checked 2026-11).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import cryptography.exceptions
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
    VerificationKey,
    algorithms,
)
from http_message_signatures.structures import VerifyResult

from contracts.errors import BadSignature
from contracts.settings.signing import HttpSignatureSettings
from gateways.ingress.header_lines import HeaderLines
from gateways.ingress.keys import Key
from gateways.ingress.verifying import (
    Incoming,
    Verified,
    check_time,
    refused,
    single,
    why_not_now,
)

ALGORITHMS: Mapping[str, type[algorithms.HTTPSignatureAlgorithm]] = {
    kind.algorithm_id: kind
    for kind in (
        algorithms.ED25519,
        algorithms.ECDSA_P256_SHA256,
        algorithms.ECDSA_P384_SHA384,
        algorithms.RSA_PSS_SHA512,
        algorithms.RSA_V1_5_SHA256,
        algorithms.HMAC_SHA256,
    )
}
# How far in the future `created` may lie, and how long past `expires`: clocks differ.
_SKEW = timedelta(seconds=30)
# Each of these may name a dozen components; more is no sender that we know.
_MAX_FIELD_BYTES = 4096
_SIGNATURE, _INPUT = b"signature", b"signature-input"


class HttpSignatureVerifier:
    """Verifies one source's HTTP Message Signatures.

    Args:
        settings: what is demanded.
        url: of the source, as the sender knows it.
        keys: the source's keys, retired and future ones included.
        tolerance_s: in place of the settings' max_age_s, where the source has one.
    """

    def __init__(
        self, settings: HttpSignatureSettings, url: str, keys: Sequence[Key], tolerance_s: float | None = None
    ) -> None:
        self._settings = settings
        self._url = url
        self._max_age = timedelta(seconds=tolerance_s or settings.max_age_s)
        # A keyid names a secret, of which there may be a version before the current one: `id:previous`.
        versions: dict[str, dict[str, Key]] = {}
        for key in keys:
            secret_id, _, version = key.id.partition(":")
            versions.setdefault(version, {})[secret_id] = key
        self._versions = [versions[version] for version in sorted(versions)]

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`."""
        for name in (_SIGNATURE, _INPUT):
            line = single(request.headers, name)
            if line is None:
                raise refused(detail="missing_header")
            if len(line) > _MAX_FIELD_BYTES:
                raise refused(detail="malformed")
        *earlier, last = self._versions
        for keys in earlier:
            try:
                return self._verify(request, now, keys)
            except BadSignature as error:
                if error.detail != "wrong_signature":
                    raise
        return self._verify(request, now, last)

    def _verify(self, request: Incoming, now: datetime, keys: Mapping[str, Key]) -> Verified:
        message = _Message(self._url_of(request), request.headers)
        resolver = _Resolver(keys, self._settings.keyids)
        verifier = _TimedVerifier(ALGORITHMS[self._settings.algorithm], resolver, now, self._max_age)
        result = self._result(verifier, message)
        key = resolver.resolve(str(result.parameters["keyid"]))
        self._check_coverage(result)
        _check_digest(verifier, message, result, request.body)
        if key is None or not key.is_valid_at(now):
            raise refused(detail="wrong_signature" if key is None else why_not_now(key, now))
        covered = (name[1:-1] for name in result.covered_components if name.endswith('"') and not name.startswith('"@'))
        created = result.parameters["created"]
        return Verified(
            key.id,
            None,
            int(created),
            signed=request.body,
            signs_id=True,
            signed_headers=frozenset(name.encode() for name in covered),
        )

    def _url_of(self, request: Incoming) -> str:
        """Return the configured URL with the request's own query: it is a component of its own, so nothing can move."""
        return urlunsplit(urlsplit(self._url)._replace(query=request.query.decode("latin-1")))

    def _result(self, verifier: "_TimedVerifier", message: "_Message") -> VerifyResult:
        try:
            results = verifier.verify(message, max_age=self._max_age, expect_tag=self._settings.tag)
        except HTTPMessageSignaturesException as error:
            if isinstance(error.__cause__, cryptography.exceptions.InvalidSignature):
                raise refused(detail="wrong_signature") from error
            if verifier.unknown_keyid:
                raise refused(detail="unknown_key") from error
            raise refused(detail="malformed") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            # The library's parsers may raise more than they say.
            raise refused(detail="malformed") from error
        # All that have the tag are good; the first is as good as any.
        return results[0]

    def _check_coverage(self, result: VerifyResult) -> None:
        for name in self._settings.components:
            if f'"{name}"' not in result.covered_components:
                raise refused(detail="component_not_covered")


def _check_digest(verifier: HTTPMessageVerifier, message: "_Message", result: VerifyResult, body: bytes) -> None:
    """Refuse a body that the signature does not cover, an empty one included."""
    if not any(name.startswith('"content-digest"') for name in result.covered_components):
        raise refused(detail="digest_missing")
    try:
        checked = verifier.verify_body(message, [result], body)
    except (HTTPMessageSignaturesException, ValueError, TypeError) as error:
        raise refused(detail="digest_differs") from error
    if checked[0].body is None:
        raise refused(detail="digest_missing")


class _Headers:
    """Header lines as the library reads them; repeated ones are joined by it, as RFC 9421 says."""

    def __init__(self, lines: HeaderLines) -> None:
        self._lines = lines

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield the lines."""
        for name, value in self._lines:
            yield name.decode("latin-1"), value.decode("latin-1")


class _Message:
    """A request as the library reads it."""

    method = "POST"

    def __init__(self, url: str, lines: HeaderLines) -> None:
        self.url = url
        self.headers = _Headers(lines)


class _Resolver(HTTPSignatureKeyResolver):
    """Finds the key that a keyid means, retired ones included, so that a refusal can say so."""

    def __init__(self, keys: Mapping[str, Key], keyids: Mapping[str, str]) -> None:
        self._keys = keys
        self._keyids = keyids
        self.has_missed = False

    def resolve(self, keyid: str) -> Key | None:
        return self._keys.get(self._keyids.get(keyid, keyid))

    def resolve_public_key(self, key_id: str) -> VerificationKey | None:
        key = self.resolve(key_id)
        self.has_missed = self.has_missed or key is None
        return None if key is None else key.public or key.secret


class _TimedVerifier(HTTPMessageVerifier):
    """The library's verifier by a given clock, with reasons of ours."""

    def __init__(
        self, algorithm: type[algorithms.HTTPSignatureAlgorithm], resolver: _Resolver, now: datetime, max_age: timedelta
    ) -> None:
        super().__init__(signature_algorithm=algorithm, key_resolver=resolver)
        self._resolver = resolver
        self._now_s = now.timestamp()
        self._max_age_s = max_age.total_seconds()

    @property
    def unknown_keyid(self) -> bool:
        return self._resolver.has_missed

    def validate_created_and_expires(self, sig_input: Any, max_age: timedelta | None = None) -> None:  # noqa: ARG002
        created, expires = sig_input.params.get("created"), sig_input.params.get("expires")
        if type(created) is not int or (expires is not None and type(expires) is not int):
            raise InvalidSignature
        skew_s = _SKEW.total_seconds()
        check_time(created, self._now_s, self._max_age_s)
        if created > self._now_s + skew_s:
            raise refused(detail="in_future")
        if expires is not None and expires < self._now_s - skew_s:
            raise refused(detail="stale")
