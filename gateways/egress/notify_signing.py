"""Signs callbacks by Standard Webhooks: v1 (HMAC-SHA256) and v1a (ed25519), with every key that counts at the moment.

The receivers' own library is not used: it knows no v1a, and takes secrets of three bytes. Tests verify with it.

Blocking: `resolve_keys` reads the files that secrets refer to; an ed25519 signature costs some 50 us.

Source: Standard Webhooks 1.0.0, "Signature scheme"; 64-byte secret keys as svix-server writes them (checked 2026-11).
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contracts.errors import ConfigError
from contracts.settings import SourceSecret

HMAC_PREFIX, SECRET_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
# The specification's bounds for HMAC secrets.
_HMAC_BYTES = (24, 64)
_NEW_HMAC_BYTES = 32
_SEED_BYTES = 32


class Signer(Protocol):
    """Makes one kind of signature."""

    def sign(self, text: bytes) -> str:
        """Return the entry of the signature header, version and all."""


class HmacSigner:
    """Signs as v1."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, text: bytes) -> str:
        """Return `v1,<base64>`."""
        return f"v1,{_base64(hmac.digest(self._secret, text, 'sha256'))}"


class Ed25519Signer:
    """Signs as v1a."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    def sign(self, text: bytes) -> str:
        """Return `v1a,<base64>`."""
        return f"v1a,{_base64(self._key.sign(text))}"

    @property
    def public_key(self) -> str:
        """What receivers verify with: `whpk_...`."""
        return PUBLIC_PREFIX + _base64(self.public_bytes)

    @property
    def public_bytes(self) -> bytes:
        """The public key's 32 bytes."""
        return self._key.public_key().public_bytes_raw()


class SigningKey(NamedTuple):
    """A key of an endpoint, and when it counts."""

    id: str
    signer: Signer
    settings: SourceSecret


def resolve_keys(where: str, configured: Sequence[SourceSecret]) -> tuple[SigningKey, ...]:
    """Return the keys of an endpoint.

    Raises:
        ConfigError: a secret is missing, or not one of Standard Webhooks; names the section and the key's id.
    """
    return tuple(_resolve(f"{where}: secret {secret.id!r}", secret) for secret in configured)


def signed_headers(
    keys: Sequence[SigningKey], webhook_id: str, body: bytes, now: datetime
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return (the three headers of an attempt, the ids of the keys that signed).

    Args:
        keys: of the endpoint; those that count now all sign, so that receivers may change theirs at any moment.
        webhook_id: the same for every attempt; without a dot, which would shift what is signed.
        body: exactly what is sent.
        now: of this attempt, aware.

    Raises:
        ConfigError: no key counts now.
    """
    active = [key for key in keys if key.settings.is_valid_at(now)]
    if not active:
        message = f"none of the keys {', '.join(key.id for key in keys)} is valid now"
        raise ConfigError(message)
    stamp = str(int(now.timestamp()))
    text = f"{webhook_id}.{stamp}.".encode() + body
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(key.signer.sign(text) for key in active),
    }, tuple(key.id for key in active)


def new_hmac_secret() -> str:
    """Return a new secret for v1."""
    return HMAC_PREFIX + _base64(secrets.token_bytes(_NEW_HMAC_BYTES))


def new_ed25519_pair() -> tuple[str, str]:
    """Return a new (secret key, public key) for v1a."""
    seed = secrets.token_bytes(_SEED_BYTES)
    signer = Ed25519Signer(seed)
    return SECRET_PREFIX + _base64(seed + signer.public_bytes), signer.public_key


def _resolve(where: str, secret: SourceSecret) -> SigningKey:
    try:
        return SigningKey(secret.id, signer_of(secret.value.resolve()), secret)
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error


def signer_of(text: bytes) -> Signer:
    """Return what signs with a secret, by its prefix.

    Raises:
        ConfigError: neither a secret for v1 nor one for v1a; the text never repeats it.
    """
    if text.startswith(HMAC_PREFIX.encode()):
        return HmacSigner(_hmac_key(_decoded(text, HMAC_PREFIX)))
    if text.startswith(SECRET_PREFIX.encode()):
        return _ed25519(_decoded(text, SECRET_PREFIX))
    message = f"must begin with {HMAC_PREFIX} or {SECRET_PREFIX}; `penstock callbacks keygen` makes one"
    raise ConfigError(message)


def _hmac_key(raw: bytes) -> bytes:
    smallest, largest = _HMAC_BYTES
    if not smallest <= len(raw) <= largest:
        message = f"has {len(raw)} bytes, needs {smallest} to {largest}"
        raise ConfigError(message)
    return raw


def _ed25519(raw: bytes) -> Ed25519Signer:
    if len(raw) not in {_SEED_BYTES, 2 * _SEED_BYTES}:
        message = f"has {len(raw)} bytes, needs {_SEED_BYTES} (seed) or {2 * _SEED_BYTES} (seed and public key)"
        raise ConfigError(message)
    signer = Ed25519Signer(raw[:_SEED_BYTES])
    if raw[_SEED_BYTES:] not in {b"", signer.public_bytes}:
        # Signing would work, and no receiver could verify with the public key it was given.
        message = "its public half does not belong to its secret half"
        raise ConfigError(message)
    return signer


def _decoded(text: bytes, prefix: str) -> bytes:
    try:
        return base64.b64decode(text[len(prefix) :], validate=True)
    except binascii.Error as error:
        message = f"is not base64 behind {prefix}"
        raise ConfigError(message) from error


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
