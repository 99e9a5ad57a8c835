"""Takes a proxy's word about the client certificate that it has verified, if it is our proxy.

Two proofs that it is: its address, and a secret that it sends. Either alone is weak: addresses are shared inside a
network, a secret may leak. A certificate proves who sends and nothing about the body: only over TLS.

Source: RFC 9440 (Client-Cert), RFC 4514 (subjects as text).
"""

import hmac
from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import http_sf
from cryptography import x509

from contracts.settings.signing import ClientCertificateSettings
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming, Verified, key_in_time, refused, single

# Chains are not read; one certificate with many names is below this.
_MAX_CERTIFICATE_BYTES = 16 * 1024


class ClientCertificateVerifier:
    """Verifies one source by the client certificate that a trusted proxy names.

    Args:
        settings: whose certificates count, and which proxy is believed.
        keys: the secrets by which the proxy proves itself, retired and future ones included.
    """

    def __init__(self, settings: ClientCertificateSettings, keys: Sequence[Key]) -> None:
        self._settings = settings
        self._keys = tuple(keys)
        self._header = settings.header.encode()
        self._proof = settings.proof_header.encode()
        self._subjects = [(subject.id, subject.subject.encode()) for subject in settings.subjects]

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`; says only whose certificate it was, since nothing is signed."""
        if not self._is_trusted(request.peer):
            raise refused(detail="untrusted_peer")
        proof = single(request.headers, self._proof)
        value = single(request.headers, self._header)
        if proof is None or value is None:
            raise refused(detail="missing_header")
        # Every key is compared, so that the time tells nothing about which one came close.
        matching = [key for key in self._keys if hmac.compare_digest(key.secret, proof)]
        if not matching:
            raise refused(detail="wrong_proof")
        key_in_time(matching, now)
        names = {value} if self._settings.form == "text" else _names_of(value, now)
        for name, subject in self._subjects:
            if subject in names:
                return Verified(name)
        raise refused(detail="unknown_subject")

    def _is_trusted(self, peer: str) -> bool:
        """Tell whether the peer is in one of the proxies' networks; an unknown peer, or a socket file, is not."""
        try:
            address: IPv4Address | IPv6Address = ip_address(peer)
        except ValueError:
            return False
        # A socket that listens on both families reports IPv4 peers so.
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((mapped or address) in network for network in self._settings.trusted_proxies)


def _names_of(value: bytes, now: datetime) -> set[bytes]:
    """Return the subject and the alternative names of a certificate in the form of RFC 9440."""
    try:
        item: Any = http_sf.parse(value, tltype="item")
        raw = item[0]
        if not isinstance(raw, bytes) or len(raw) > _MAX_CERTIFICATE_BYTES:
            raise refused(detail="malformed")
        certificate = x509.load_der_x509_certificate(raw)
        names = {certificate.subject.rfc4514_string()} | _alternative_names(certificate)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise refused(detail="stale")
    except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise refused(detail="malformed") from error
    return {name.encode("utf-8", "surrogatepass") for name in names}


def _alternative_names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    kinds: tuple[tuple[str, type[x509.DNSName | x509.UniformResourceIdentifier | x509.RFC822Name]], ...] = (
        ("DNS", x509.DNSName),
        ("URI", x509.UniformResourceIdentifier),
        ("email", x509.RFC822Name),
    )
    return {f"{prefix}:{text}" for prefix, kind in kinds for text in names.get_values_for_type(kind)}
