"""Reads senders' public keys and checks signatures with them; all arithmetic is the library's.

Source: RFC 8032 (ed25519), FIPS 186-5 (ECDSA), RFC 5280 (SubjectPublicKeyInfo).
"""

import base64
import binascii
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from gateways.ingress.text import decode_base64

PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey

# One costs some 70 us (ed25519): a list of them must not cost a sender's budget.
MAX_PUBLIC_SIGNATURES = 4
_MIN_RSA_BITS = 2048
_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "ecdsa-p256-sha256": ec.SECP256R1,
    "ecdsa-p384-sha384": ec.SECP384R1,
}
_RSA = frozenset({"rsa-pss-sha512", "rsa-v1_5-sha256"})
_SIGN_BIT = 0x80
# Points of small order: for such a key anybody can make a signature that fits (libsodium refuses the same).
_WEAK_ED25519 = frozenset(
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def load_public_key(text: bytes, algorithm: str, encoding: str) -> PublicKey:
    """Return the public key that a text is.

    Args:
        text: as configured, without its prefix.
        algorithm: what it verifies.
        encoding: hex or base64 of its raw bytes, der (in base64), or pem.

    Raises:
        ValueError: it is not one, or a weak one; the text says why and never repeats it.
    """
    if b"PRIVATE KEY" in text:
        message = "is a private key; the sender's public key is needed"
        raise ValueError(message)
    try:
        key = _load(text, algorithm, encoding)
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"is not a public key for {algorithm} in {encoding}"
        raise ValueError(message) from error
    _check_kind(key, algorithm)
    return key


def _load(text: bytes, algorithm: str, encoding: str) -> PublicKey:
    if encoding == "pem":
        return load_pem_public_key(text)  # type: ignore[return-value] # any kind; the caller looks at it
    raw = bytes.fromhex(text.decode("ascii")) if encoding == "hex" else decode_base64(text)
    if encoding == "der":
        return load_der_public_key(raw)  # type: ignore[return-value] # the same
    if algorithm == "ed25519":
        return Ed25519PublicKey.from_public_bytes(raw)
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[algorithm](), raw)


def _check_kind(key: object, algorithm: str) -> None:
    message = f"is a public key of another kind than {algorithm}"
    if algorithm == "ed25519":
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(message)
        raw = key.public_bytes_raw()
        if raw[:-1] + bytes([raw[-1] & ~_SIGN_BIT & 0xFF]) in _WEAK_ED25519:
            message = "is a weak public key, for which anybody can sign"
            raise ValueError(message)
    elif algorithm in _RSA:
        if not isinstance(key, rsa.RSAPublicKey) or key.key_size < _MIN_RSA_BITS:
            message = f"is no RSA key of {_MIN_RSA_BITS} bits or more"
            raise ValueError(message)
    elif not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES[algorithm]):
        raise ValueError(message)


def is_signed_with(key: PublicKey, text: bytes, candidates: Sequence[bytes], encoding: str) -> bool:
    """Tell whether one of the first few signatures is this key's; anything but the one spelling does not count."""
    return any(_fits(key, text, candidate, encoding) for candidate in candidates[:MAX_PUBLIC_SIGNATURES])


def _fits(key: PublicKey, text: bytes, candidate: bytes, encoding: str) -> bool:
    signature = _decode(candidate, encoding)
    if signature is None:
        return False
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, text)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _decode(candidate: bytes, encoding: str) -> bytes | None:
    """Return a signature's bytes; None unless it is written in lower-case hex or padded, canonical base64."""
    try:
        if encoding == "hex":
            raw = bytes.fromhex(candidate.decode("ascii"))
            return raw if raw.hex().encode() == candidate else None
        raw = base64.b64decode(candidate, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw) == candidate else None
