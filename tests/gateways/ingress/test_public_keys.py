"""Senders that sign with a private key: Standard Webhooks v1a, Discord, SendGrid, own templates, and bad keys."""

import base64
import contextlib
import io
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from discord_interactions import verify_key
from nacl.signing import SigningKey, VerifyKey
from sendgrid.helpers.eventwebhook import EventWebhook

from contracts.errors import BadSignature, ConfigError
from contracts.settings import SourceSettings
from gateways.egress.notify_signing import new_ed25519_pair, new_hmac_secret, signed_headers
from gateways.egress.notify_signing import resolve_keys as signing_keys
from gateways.ingress.keys import Key, resolve_keys
from gateways.ingress.public_keys import MAX_PUBLIC_SIGNATURES, load_public_key
from gateways.ingress.schemes import SCHEMES, scheme_of
from gateways.ingress.signatures import SignatureVerifier
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming
from tests.suites.signatures import Headers, StampedSuite, lines_of

NOW = datetime.now(UTC)
STAMP = str(int(NOW.timestamp()))


def ed25519(secret: str) -> SigningKey:
    return SigningKey(secret.encode())


def curve_key(secret: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret[:31].encode()), ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


class TestStandardWebhooksV1a(StampedSuite):
    """No library of Standard Webhooks knows v1a: PyNaCl signs and verifies in its place."""

    scheme = "standard-webhooks"
    signature_header = "webhook-signature"
    stamp_header = "webhook-timestamp"

    def key(self, secret: str, name: str = "current") -> Key:
        public = load_public_key(base64.b64encode(bytes(ed25519(secret).verify_key)), "ed25519", "base64")
        return Key(name, b"", b"", public=public)

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        stamp = str(int(at.timestamp()))
        signature = ed25519(secret).sign(f"msg_1.{stamp}.{body}".encode()).signature
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1a,{base64.b64encode(signature).decode()}",
        }

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        signature = base64.b64decode(headers["webhook-signature"].removeprefix("v1a,"))
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        return bool(VerifyKey(bytes(ed25519(self.secret).verify_key)).verify(text, signature)) or True

    def entries(self, value: str) -> list[str]:
        return [entry for entry in value.split(" ") if entry.startswith("v1a,")]


class TestDiscord(StampedSuite):
    scheme = "discord"
    signature_header = "x-signature-ed25519"
    stamp_header = "x-signature-timestamp"

    def key(self, secret: str, name: str = "current") -> Key:
        public = load_public_key(bytes(ed25519(secret).verify_key).hex().encode(), "ed25519", "hex")
        return Key(name, b"", b"", public=public)

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        stamp = str(int(at.timestamp()))
        signature = ed25519(secret).sign(f"{stamp}{body}".encode()).signature
        headers = {"x-signature-ed25519": signature.hex(), "x-signature-timestamp": stamp}
        if secret == self.secret:
            assert self.library_accepts(body.encode(), headers)
        return headers

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        public = bytes(ed25519(self.secret).verify_key).hex()
        # It prints why it refuses.
        with contextlib.redirect_stdout(io.StringIO()):
            return bool(verify_key(body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], public))


class TestSendGrid(StampedSuite):
    scheme = "sendgrid"
    signature_header = "x-twilio-email-event-webhook-signature"
    stamp_header = "x-twilio-email-event-webhook-timestamp"

    def key(self, secret: str, name: str = "current") -> Key:
        public = load_public_key(spki(curve_key(secret)).encode(), "ecdsa-p256-sha256", "der")
        return Key(name, b"", b"", public=public)

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        stamp = str(int(at.timestamp()))
        signature = curve_key(secret).sign(f"{stamp}{body}".encode(), ec.ECDSA(hashes.SHA256()))
        headers = {
            "x-twilio-email-event-webhook-signature": base64.b64encode(signature).decode(),
            "x-twilio-email-event-webhook-timestamp": stamp,
        }
        if secret == self.secret:
            assert self.library_accepts(body.encode(), headers)
        return headers

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        library = EventWebhook(spki(curve_key(self.secret)))
        signature, stamp = (headers[name] for name in (self.signature_header, self.stamp_header))
        return bool(library.verify_signature(body.decode(), signature, stamp))


def test_another_spelling_of_the_right_signature_is_refused() -> None:
    discord, standard = TestDiscord(), TestStandardWebhooksV1a()
    by_hex, by_base64 = (suite.sign("{}", suite.secret, NOW) for suite in (discord, standard))
    signature = by_base64["webhook-signature"]
    # Sixty-four bytes leave four bits of the last character unused; a lax reader does not look at them.
    last = chr(ord(signature[-3]) + 1)

    assert not discord.is_accepted(b"{}", by_hex | {"x-signature-ed25519": by_hex["x-signature-ed25519"].upper()})
    assert not discord.is_accepted(b"{}", by_hex | {"x-signature-ed25519": f"{by_hex['x-signature-ed25519']} "})
    for changed in (f"{signature[:-3]}{last}==", signature.rstrip("="), f"{signature}="):
        assert not standard.is_accepted(b"{}", by_base64 | {"webhook-signature": changed})


def test_a_source_may_have_keys_for_v1_and_for_v1a_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = new_ed25519_pair()
    secret = new_hmac_secret()
    for name, value in {"PRIVATE": private, "PUBLIC": public, "SECRET": secret}.items():
        monkeypatch.setenv(f"TEST_{name}", value)
    document = {
        "scheme": "standard-webhooks",
        "type": "t",
        "secrets": [{"id": "v1", "value": "env:TEST_SECRET"}, {"id": "v1a", "value": "env:TEST_PUBLIC"}],
    }
    source = SourceSettings.model_validate(document)
    verifier = build_verifier("shop", source, resolve_keys("shop", source, scheme_of(source)))
    for name, used in (("v1", "SECRET"), ("v1a", "PRIVATE")):
        signer = SourceSettings.model_validate(document | {"secrets": [{"id": "a", "value": f"env:TEST_{used}"}]})
        headers, _ = signed_headers(signing_keys("x", signer.secrets), "msg_1", b"{}", NOW)

        assert verifier.verify(Incoming(lines_of(headers), b"{}"), NOW).key_id == name


def test_a_v1a_signature_without_a_public_key_is_passed_over() -> None:
    key = Key("k", b"k" * 24, b"k" * 24)
    lines = lines_of({"webhook-id": "m", "webhook-timestamp": STAMP, "webhook-signature": "v1a,AAAA"})

    with pytest.raises(BadSignature) as caught:
        SignatureVerifier(SCHEMES["standard-webhooks"], [key]).verify(Incoming(lines, b""), NOW)
    assert caught.value.detail == "malformed"


def test_only_the_first_few_public_key_signatures_are_looked_at() -> None:
    suite = TestStandardWebhooksV1a()
    headers = suite.sign("{}", suite.secret, NOW)
    good, garbage = headers["webhook-signature"], f"v1a,{base64.b64encode(b'x' * 64).decode()}"
    for before, is_good in ((MAX_PUBLIC_SIGNATURES - 1, True), (MAX_PUBLIC_SIGNATURES, False)):
        line = " ".join([garbage] * before + [good])

        assert suite.is_accepted(b"{}", headers | {"webhook-signature": line}) is is_good


@pytest.mark.parametrize("encoding", ["hex", "base64", "der", "pem"])
@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256-sha256"])
def test_an_own_template_takes_public_keys_in_every_writing(
    algorithm: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = Ed25519PrivateKey.generate() if algorithm == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    monkeypatch.setenv("TEST_KEY", written(private, encoding))
    source = SourceSettings.model_validate(
        {
            "scheme": "public-key",
            "type": "t",
            "secrets": [{"id": "k", "value": "env:TEST_KEY"}],
            "public_key": {
                "algorithm": algorithm,
                "key_encoding": encoding,
                "signature_header": "x-sig",
                "encoding": "base64",
                "signed": "{timestamp}.{body}",
                "timestamp_header": "x-time",
            },
        }
    )
    text = f"{STAMP}.{{}}".encode()
    if isinstance(private, Ed25519PrivateKey):
        signature = private.sign(text)
    else:
        signature = private.sign(text, ec.ECDSA(hashes.SHA256()))
    lines = [(b"x-sig", base64.b64encode(signature)), (b"x-time", STAMP.encode())]
    verifier = build_verifier("shop", source, resolve_keys("shop", source, scheme_of(source)))

    assert verifier.verify(Incoming(lines, b"{}"), NOW).key_id == "k"
    with pytest.raises(BadSignature):
        verifier.verify(Incoming(lines, b"{ }"), NOW)


def written(private: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, encoding: str) -> str:
    public = private.public_key()
    if encoding == "pem":
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    if encoding == "der":
        return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()
    is_raw = isinstance(private, Ed25519PrivateKey)
    raw = (
        public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        if is_raw
        else public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    )
    return raw.hex() if encoding == "hex" else base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    ("scheme", "text", "why"),
    [
        ("discord", "00" * 32, "weak"),
        ("discord", "01" + "00" * 31, "weak"),
        ("discord", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", "weak"),
        ("discord", "ab" * 31, "not a public key"),
        ("discord", "zz", "not a public key"),
        ("discord", "\u00fc", "not a public key"),
        ("sendgrid", "AAAA", "not a public key"),
        ("sendgrid", "-----BEGIN PRIVATE KEY-----", "is a private key"),
        ("standard-webhooks", "whpk_AAAA", "not a public key"),
        ("standard-webhooks", "whsk_" + base64.b64encode(b"s" * 64).decode(), "whsec_"),
    ],
)
def test_a_key_that_protects_nothing_is_refused_at_start(
    scheme: str, text: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", text)
    source = SourceSettings.model_validate(
        {"scheme": scheme, "type": "t", "secrets": [{"id": "k", "value": "env:TEST_KEY"}]}
    )

    with pytest.raises(ConfigError, match=rf"sources\.shop: secret 'k'.*{why}") as caught:
        resolve_keys("shop", source, scheme_of(source))
    assert text not in str(caught.value)


def test_a_key_of_another_curve_is_refused() -> None:
    text = spki_of_another_curve()

    with pytest.raises(ValueError, match="another kind"):
        load_public_key(text, "ecdsa-p256-sha256", "der")
    with pytest.raises(ValueError, match="another kind"):
        load_public_key(text, "ed25519", "der")


def spki_of_another_curve() -> bytes:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return base64.b64encode(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
