"""Client certificates behind a proxy: who is believed about them, and who never is."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadSignature, InvalidPayload
from contracts.settings.signing import ClientCertificateSettings
from gateways.ingress.client_certificates import ClientCertificateVerifier
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming, Verified

NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
PROOF = b"the proxy's own secret"
SUBJECT = "CN=hooks.partner.example,O=Partner,C=DE"
GOOD = [(b"x-ssl-client-s-dn", SUBJECT.encode()), (b"x-proxy-proof", PROOF)]


def verify(lines: list[tuple[bytes, bytes]], peer: str = "10.1.2.3", *keys: Key, **settings: Any) -> Verified:
    document = {
        "header": "X-SSL-Client-S-DN",
        "subjects": [
            {"id": "partner", "subject": SUBJECT},
            {"id": "dns", "subject": "DNS:hooks.other.example"},
            {"id": "uri", "subject": "URI:spiffe://example/other"},
        ],
        "trusted_proxies": ["10.0.0.0/8", "fd00::/8"],
    }
    verifier = ClientCertificateVerifier(
        ClientCertificateSettings.model_validate(document | settings), keys or (Key("proof", PROOF, PROOF),)
    )
    return verifier.verify(Incoming(lines, b"{}", peer=peer), NOW)


def detail(lines: list[tuple[bytes, bytes]], peer: str = "10.1.2.3", *keys: Key, **settings: Any) -> str:
    with pytest.raises(BadSignature) as caught:
        verify(lines, peer, *keys, **settings)
    return caught.value.detail


@pytest.mark.parametrize("peer", ["10.1.2.3", "fd00::1", "::ffff:10.1.2.3"])
def test_a_subject_from_the_proxy_is_accepted_and_named_and_signs_nothing(peer: str) -> None:
    verified = verify(GOOD, peer)

    assert (verified.key_id, verified.signed, verified.signs_id) == ("partner", None, False)


@pytest.mark.parametrize(
    "peer", ["", "192.0.2.1", "::1", "::ffff:192.0.2.1", "unix:/run/x", "10.1.2.3.4", "10.1.2.3:80"]
)
def test_nobody_else_is_believed_though_the_proof_is_right(peer: str) -> None:
    assert detail(GOOD, peer) == "untrusted_peer"


def test_forwarded_headers_make_no_proxy() -> None:
    assert detail([*GOOD, (b"x-forwarded-for", b"10.1.2.3")], "192.0.2.1") == "untrusted_peer"


@pytest.mark.parametrize("proof", [b"x", PROOF + b" ", PROOF.upper(), b"\xff"])
def test_a_peer_of_the_network_without_the_proof_is_not_the_proxy(proof: bytes) -> None:
    assert detail([GOOD[0], (b"x-proxy-proof", proof)]) == "wrong_proof"


def test_each_of_the_two_headers_is_needed_once() -> None:
    assert detail(GOOD[:1]) == "missing_header"
    assert detail(GOOD[1:]) == "missing_header"
    for line in GOOD:
        with pytest.raises(InvalidPayload):
            verify([*GOOD, line])


def test_a_retired_proof_is_recognised() -> None:
    retired = Key("old", PROOF, PROOF, not_after=NOW - timedelta(seconds=1))

    assert detail(GOOD, "10.1.2.3", retired) == "retired_key"


@pytest.mark.parametrize(
    "value", [SUBJECT.lower(), f"{SUBJECT} ", f"{SUBJECT},{SUBJECT}", "CN=other", "DNS:x", "\u00fc"]
)
def test_another_subject_is_refused(value: str) -> None:
    assert detail([(b"x-ssl-client-s-dn", value.encode()), GOOD[1]]) == "unknown_subject"


def certificate(*, dns: str = "", uri: str = "", common_name: str = "x", ends_at: datetime | None = None) -> bytes:
    private = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - timedelta(days=1))
    builder = builder.not_valid_after(ends_at or NOW + timedelta(days=1))
    names: list[x509.GeneralName] = [x509.DNSName(dns)] if dns else []
    names += [x509.UniformResourceIdentifier(uri)] if uri else []
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    raw = builder.sign(private, None).public_bytes(Encoding.DER)
    return b":" + base64.b64encode(raw) + b":"


def certified(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"client-cert", value), GOOD[1]]


WHOLE: dict[str, Any] = {"header": "client-cert", "form": "certificate"}


@pytest.mark.parametrize(
    ("dns", "uri", "key_id"), [("hooks.other.example", "", "dns"), ("", "spiffe://example/other", "uri")]
)
def test_a_whole_certificate_is_known_by_its_alternative_names(dns: str, uri: str, key_id: str) -> None:
    assert verify(certified(certificate(dns=dns, uri=uri)), **WHOLE).key_id == key_id


def test_a_whole_certificate_is_known_by_its_subject() -> None:
    subjects = [{"id": "cn", "subject": "CN=hooks.partner.example"}]
    value = certificate(common_name="hooks.partner.example")

    assert verify(certified(value), **WHOLE, subjects=subjects).key_id == "cn"


def test_a_subject_that_looks_like_an_alternative_name_is_not_one() -> None:
    assert detail(certified(certificate(common_name="DNS:hooks.other.example")), **WHOLE) == "unknown_subject"


def test_a_certificate_outside_its_time_is_refused() -> None:
    value = certificate(dns="hooks.other.example", ends_at=NOW - timedelta(seconds=1))

    assert detail(certified(value), **WHOLE) == "stale"


@given(value=st.binary(min_size=1, max_size=200) | st.sampled_from([b"::", b":AAAA:", b"1", b"a=:AA==:", b"(" * 5000]))
def test_no_bytes_get_anything_but_a_refusal(value: bytes) -> None:
    assert detail(certified(value), **WHOLE) == "malformed"


def test_two_entries_for_one_header_are_refused_at_start() -> None:
    with pytest.raises(ValueError, match="must be two"):
        verify(GOOD, proof_header="x-ssl-client-s-dn")
