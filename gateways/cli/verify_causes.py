"""Finds out offline why a signature does not fit, with what the gateway has no time for.

Secrets read in another way, those of other sources, other forms of the body, and the time at which it was sent.
Nothing that is tried here is ever accepted. Blocking: reads the secrets of all sources.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from contracts.errors import BadSignature, ConfigError, PenstockError
from contracts.settings import Settings, SourceSettings
from gateways.ingress.explaining import fitting
from gateways.ingress.keys import Key, resolve_keys
from gateways.ingress.schemes import SCHEMES, Scheme, scheme_of
from gateways.ingress.secrets import Secrets
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming, Verifier

# Shorter texts are no secrets that anybody signs with.
_MIN_KEY_BYTES = 8
_PREFIX = b"whsec_"


class Cause(NamedTuple):
    """Why a request is refused: a reason code, in words, and which key fits if one does."""

    detail: str
    words: str
    key_id: str | None = None


class Case:
    """A refused request.

    Args:
        settings: the whole configuration.
        name: of the source.
        keys: of the source.
        request: as it was captured.
        secrets: how references to secrets are read.
        target: path and query of its URL.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        keys: Sequence[Key],
        request: Incoming,
        secrets: Secrets,
        target: bytes = b"",
    ) -> None:
        self._secrets = secrets
        self._target = target
        self._settings = settings
        self._name = name
        self._source = settings.sources[name]
        self._keys = keys
        self._request = request

    def cause(self, error: BadSignature, now: datetime) -> Cause | None:
        """Return a better explanation than the verifier's; None when there is none."""
        if error.age_s is None:
            return self._cause_at(now)
        # As it was when it was sent: is its time all that is wrong?
        then = now - timedelta(seconds=error.age_s)
        key_id = self._key_that_fits(self._verifier(self._keys), then)
        if key_id is not None:
            words = f"apart from its time it is authentic: at {then.isoformat()} the signature fits {key_id}"
            return Cause(error.detail, words, key_id)
        words = "its time is not all that is wrong: at the sender's own time no secret fits either"
        return self._cause_at(then) or Cause(error.detail, words)

    def _cause_at(self, now: datetime) -> Cause | None:
        return (
            self._other_scheme()
            or self._other_form(now)
            or self._other_url(now)
            or self._other_key(now)
            or self._other_source(now)
        )

    def _other_scheme(self) -> Cause | None:
        """Return which scheme's signature stands there, if that of the source's does not."""
        present = {name for name, _ in self._request.headers}
        own = _signature_headers(scheme_of(self._source))
        if not own or own & present:
            return None
        for name, scheme in SCHEMES.items():
            for header in sorted(_signature_headers(scheme) & present):
                return Cause("other_scheme", f"header {header.decode()} is there, which belongs to scheme {name}")
        return None

    def _other_form(self, now: datetime) -> Cause | None:
        form = fitting(self._verifier(self._keys), self._request, now)
        if form is None:
            return None
        variant, verified = form
        return Cause(variant.detail, f"the signature fits {verified.key_id} with {variant.words}", verified.key_id)

    def _other_url(self, now: datetime) -> Cause | None:
        """Return which URL the sender has signed, where it signs one and it is not the configured one."""
        for url in _other_urls(self._source, self._request, self._target):
            source = self._source.model_copy(update={"public_url": url})
            if key_id := self._key_that_fits(build_verifier(self._name, source, self._keys), now):
                words = f"the signature fits {key_id} with the URL {url} in place of {self._source.public_url}"
                return Cause("url_differs", words, key_id)
        return None

    def _other_key(self, now: datetime) -> Cause | None:
        for cause, key in (*_other_readings(self._keys), *self._keys_of_others()):
            verifier = self._verifier([key])
            if self._key_that_fits(verifier, now):
                return cause
            if form := fitting(verifier, self._request, now):
                return cause._replace(words=f"{cause.words}, and with {form[0].words}")
        return None

    def _other_source(self, now: datetime) -> Cause | None:
        """Return another source to which the whole request belongs."""
        for other, source in self._settings.sources.items():
            keys = self._keys_of(other, source) if other != self._name else ()
            if keys and self._key_that_fits(build_verifier(other, source, keys), now):
                return Cause("other_source", f"the request is authentic for source {other}; was the URL mixed up?")
        return None

    def _keys_of_others(self) -> Iterator[tuple[Cause, Key]]:
        # A public key is no secret of an HMAC, nor the other way round.
        kinds = {key.public is None for key in self._keys}
        for other, source in self._settings.sources.items():
            for key in self._keys_of(other, source) if other != self._name else ():
                if (key.public is None) not in kinds:
                    continue
                cause = Cause("other_source", f"the signature fits {key.id} of source {other}")
                yield cause, _free(key)
                if key.public is None:
                    yield cause, _free(key)._replace(secret=key.text)

    def _keys_of(self, name: str, source: SourceSettings) -> Sequence[Key]:
        if not source.secrets:
            return ()
        try:
            return resolve_keys(name, source, scheme_of(source), self._secrets)
        except ConfigError:
            # This machine need not have the secrets of every source.
            return ()

    def _verifier(self, keys: Sequence[Key]) -> Verifier:
        return build_verifier(self._name, self._source, keys)

    def _key_that_fits(self, verifier: Verifier, now: datetime) -> str | None:
        try:
            return verifier.verify(self._request, now).key_id
        except PenstockError:
            return None


def _signature_headers(scheme: Scheme) -> set[bytes]:
    """Return the header of a scheme's signature and its twin; none where no template says."""
    if scheme.template is None:
        return set()
    header = scheme.template.signature_header.encode()
    return {header, scheme.twins.get(header, header)}


def _other_urls(source: SourceSettings, request: Incoming, target: bytes) -> Iterator[str]:
    """Yield URLs that a sender may have instead of the configured one."""
    url = source.public_url
    if url is None:
        return
    base, mark, query = url.partition("?")
    scheme, _, rest = base.partition("://")
    bases = [base, f"{'http' if scheme == 'https' else 'https'}://{rest}"]
    bases += [one.removesuffix("/") if one.endswith("/") else f"{one}/" for one in bases]
    for host in (value.decode("latin-1") for name, value in request.headers if name == b"host"):
        bases += [f"{kind}://{host}{target.partition(b'?')[0].decode('latin-1')}" for kind in ("https", "http")]
    for one in bases:
        for tail in (mark + query, "", "?" + request.query.decode("latin-1") if request.query else ""):
            if one + tail != url:
                yield one + tail


def _other_readings(keys: Sequence[Key]) -> Iterator[tuple[Cause, Key]]:
    """Yield the keys as another program may have read their texts, and those outside their time."""
    for key in keys:
        if key.public is not None:
            yield Cause("retired_key", f"the signature fits {key.id}, which is outside its time", key.id), _free(key)
            continue
        bare = key.text.removeprefix(_PREFIX)
        readings = (
            ("retired_key", "which is outside its time", key.secret),
            ("secret_not_decoded", "taken as text, without decoding it", key.text),
            ("secret_not_decoded", "taken as text, without its prefix", bare),
            ("secret_decoded", "decoded from base64", _from_base64(bare)),
            ("secret_decoded", "decoded from hex", _from_hex(key.text)),
            ("secret_spaces", "with a line feed behind it", key.text + b"\n"),
            ("secret_spaces", "without the spaces around it", key.text.strip()),
        )
        for detail, words, secret in readings:
            if secret is not None and len(secret) >= _MIN_KEY_BYTES:
                cause = Cause(detail, f"the signature fits {key.id}, {words}", key.id)
                yield cause, _free(key)._replace(secret=secret, text=secret)


def _free(key: Key) -> Key:
    return key._replace(not_before=None, not_after=None)


def _from_base64(text: bytes) -> bytes | None:
    usual = text.translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(usual + b"=" * (-len(usual) % 4), validate=True)
    except binascii.Error:
        return None


def _from_hex(text: bytes) -> bytes | None:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return None
