"""Signs samples with a private key, for sources that are verified with a public one: the key is the developer's own.

Source: RFC 8032, RFC 5208 (PKCS 8), RFC 9421 by the library http-message-signatures.
"""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from http_message_signatures import HTTPMessageSignaturesException, HTTPMessageSigner, MappingKeyResolver, algorithms

from contracts.errors import ConfigError
from contracts.settings.signing import HttpSignatureSettings

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ecdsa-p256-sha256": ec.SECP256R1,
    "ecdsa-p384-sha384": ec.SECP384R1,
}
_KINDS = (
    algorithms.ED25519,
    algorithms.ECDSA_P256_SHA256,
    algorithms.ECDSA_P384_SHA384,
    algorithms.RSA_PSS_SHA512,
    algorithms.RSA_V1_5_SHA256,
    algorithms.HMAC_SHA256,
)
_SEED_BYTES = 32
_RSA_BITS = 2048
_PUBLIC_EXPONENT = 65537


@lru_cache(maxsize=8)
def load_private_key(text: bytes, algorithm: str, encoding: str) -> PrivateKey:
    """Return a private key.

    Args:
        text: as configured.
        algorithm: what it signs.
        encoding: hex or base64 of its raw bytes, der (in base64) or pem of its PKCS 8.

    Raises:
        ConfigError: it is not one.
    """
    try:
        return _load(text, algorithm, encoding)
    except (binascii.Error, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        message = f"the private key is not one for {algorithm} in {encoding}"
        raise ConfigError(message) from error


def _load(text: bytes, algorithm: str, encoding: str) -> PrivateKey:
    if encoding == "pem":
        return load_pem_private_key(text, None)  # type: ignore[return-value] # a wrong kind cannot sign
    raw = bytes.fromhex(text.decode("ascii")) if encoding == "hex" else base64.b64decode(text, validate=True)
    if encoding == "der":
        return load_der_private_key(raw, None)  # type: ignore[return-value] # the same
    if algorithm == "ed25519":
        # Standard Webhooks writes the public half behind the seed.
        return Ed25519PrivateKey.from_private_bytes(raw[:_SEED_BYTES])
    return ec.derive_private_key(int.from_bytes(raw), _CURVES[algorithm]())


def new_private_key(algorithm: str, encoding: str) -> bytes:
    """Return the text of a new private key."""
    if algorithm == "ed25519":
        key: PrivateKey = Ed25519PrivateKey.generate()
    elif algorithm in _CURVES:
        key = ec.generate_private_key(_CURVES[algorithm]())
    else:
        key = rsa.generate_private_key(_PUBLIC_EXPONENT, _RSA_BITS)
    if encoding == "pem":
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if encoding == "der":
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        raw = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8)
    else:
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return raw.hex().encode() if encoding == "hex" else base64.b64encode(raw)


def public_text_of(text: bytes, algorithm: str, encoding: str) -> str:
    """Return the public key that belongs to a private one, written as that one is."""
    key = load_private_key(text, algorithm, encoding).public_key()
    if encoding == "pem":
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if encoding == "der":
        raw = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        raw = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()


def sign_text(key: PrivateKey, text: bytes) -> bytes:
    """Return the signature of a text; one of ECDSA as DER.

    Raises:
        ConfigError: the key is of a kind that no template has.
    """
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(text)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(text, ec.ECDSA(hashes.SHA256()))
    message = "the private key must be one of ed25519 or ECDSA"
    raise ConfigError(message)


class _Message:
    """A request as the library signs it."""

    method = "POST"

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url
        self.headers = dict(headers)


def sign_message(
    settings: HttpSignatureSettings,
    key: PrivateKey | bytes,
    keyid: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    timestamp_s: int,
) -> dict[str, str]:
    """Return the headers of an HTTP Message Signature over what the source demands.

    Raises:
        ConfigError: the key is of another kind, or a component is not in the request.
    """
    message = _Message(url, headers)
    kinds = {kind.algorithm_id: kind for kind in _KINDS}
    keys = MappingKeyResolver(public_keys={}, private_keys={keyid: key})
    try:
        HTTPMessageSigner(signature_algorithm=kinds[settings.algorithm], key_resolver=keys).sign(
            message,
            key_id=keyid,
            created=datetime.fromtimestamp(timestamp_s, UTC),
            covered_component_ids=settings.components,
            tag=settings.tag,
            body=body,
        )
    except HTTPMessageSignaturesException as error:
        text = f"the request cannot be signed: {error}"
        raise ConfigError(text) from error
    return {name.lower(): value for name, value in message.headers.items() if name not in headers}
