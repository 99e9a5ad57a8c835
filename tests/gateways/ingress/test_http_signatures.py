"""HTTP Message Signatures: signed by the library, verified by us, with what we demand beyond it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver, SigningKey, algorithms

from contracts.errors import BadSignature, InvalidPayload
from contracts.settings.signing import HttpSignatureSettings
from gateways.ingress.http_signatures import ALGORITHMS, HttpSignatureVerifier
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming, Verified
from tests.suites.signatures import Headers, SignatureSuite, lines_of

URL = "https://hooks.example.com/webhooks/shop"
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
BODY = b'{"amount": 100}'
COVERED = ("@method", "@target-uri")
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
KEY = Key("k1", b"", b"", public=PRIVATE.public_key())


class Message:
    """A request as the library signs and reads it."""

    method = "POST"

    def __init__(self, url: str, headers: Headers | None = None) -> None:
        self.url = url
        self.headers = {} if headers is None else headers


def signed(
    body: bytes = BODY,
    *,
    private: SigningKey = PRIVATE,
    algorithm: str = "ed25519",
    url: str = URL,
    created: datetime = NOW,
    covered: Sequence[str] = COVERED,
    has_digest: bool = True,
    headers: Headers | None = None,
    keyid: str = "k1",
    **options: Any,
) -> Headers:
    message = Message(url, dict(headers or {}))
    signer = HTTPMessageSigner(
        signature_algorithm=ALGORITHMS[algorithm],
        key_resolver=MappingKeyResolver(public_keys={}, private_keys={keyid: private}),
    )
    signer.sign(
        message,
        key_id=keyid,
        created=created,
        covered_component_ids=covered,
        body=body if has_digest else None,
        append_if_signature_exists=bool(headers and "Signature" in headers),
        **options,
    )
    return message.headers


def verify(
    headers: Headers,
    body: bytes = BODY,
    *,
    query: bytes = b"",
    keys: Sequence[Key] = (KEY,),
    now: datetime = NOW,
    **settings: Any,
) -> Verified:
    verifier = HttpSignatureVerifier(
        HttpSignatureSettings.model_validate({"algorithm": "ed25519"} | settings), URL, keys
    )
    lines = [(name.lower(), value) for name, value in lines_of(headers)]
    return verifier.verify(Incoming(lines, body, query), now)


def detail(headers: Headers, body: bytes = BODY, **options: Any) -> str:
    with pytest.raises(BadSignature) as caught:
        verify(headers, body, **options)
    return caught.value.detail


class TestHmac(SignatureSuite):
    scheme = "http-signature"
    signature_header = "signature"
    section: ClassVar[dict[str, Any]] = {
        "public_url": URL,
        "http_signature": {
            "algorithm": "hmac-sha256",
            "key_encoding": "raw",
            "keyids": {"k1": "new", "k2": "old", "k3": "current"},
        },
    }
    ambiguous = (InvalidPayload, BadSignature)

    def keyid(self, secret: str, at: datetime) -> str:
        del at
        return "k2" if secret == self.other_secret else "k1"

    def key(self, secret: str, name: str = "new") -> Key:
        return super().key(secret, "new" if name == "current" else name)

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        options: dict[str, Any] = {"algorithm": "hmac-sha256", "created": at, "keyid": self.keyid(secret, at)}
        found = signed(body.encode(), private=secret.encode(), **options)
        return {name.lower(): value for name, value in found.items()}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        keys = {"k1": self.secret.encode()}
        verifier = HTTPMessageVerifier(
            signature_algorithm=algorithms.HMAC_SHA256,
            key_resolver=MappingKeyResolver(public_keys=keys, private_keys={}),
        )
        return bool(verifier.verify(Message(URL, headers), body=body, require_components=COVERED))


PRIVATE_KEYS: dict[str, SigningKey] = {
    "ed25519": PRIVATE,
    "ecdsa-p256-sha256": ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384-sha384": ec.generate_private_key(ec.SECP384R1()),
    "rsa-pss-sha512": rsa.generate_private_key(65537, 2048),
    "rsa-v1_5-sha256": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("algorithm", sorted(PRIVATE_KEYS))
def test_every_algorithm_of_the_library_can_be_configured(algorithm: str) -> None:
    private = PRIVATE_KEYS[algorithm]
    assert not isinstance(private, bytes)
    key = Key("k1", b"", b"", public=private.public_key())
    headers = signed(private=private, algorithm=algorithm)

    assert verify(headers, keys=[key], algorithm=algorithm).key_id == "k1"
    assert detail(headers, b"{}", keys=[key], algorithm=algorithm) == "digest_differs"


def test_what_is_covered_is_told() -> None:
    headers = signed(covered=(*COVERED, "x-id"), headers={"x-id": "7"})

    verified = verify(headers)

    assert (verified.signed, verified.timestamp) == (BODY, int(NOW.timestamp()))
    assert verified.signed_headers == {b"x-id", b"content-digest"}


def test_the_algorithm_is_the_configured_one_whatever_the_request_says() -> None:
    shared = PRIVATE.public_key().public_bytes_raw()
    headers = signed(private=shared, algorithm="hmac-sha256")

    assert detail(headers) == "malformed"
    assert detail(signed(private=shared, algorithm="hmac-sha256", include_alg=False)) == "wrong_signature"


@pytest.mark.parametrize("url", ["http://hooks.example.com/webhooks/shop", "https://evil.example/webhooks/shop"])
def test_the_configured_url_counts_and_no_header_of_the_request(url: str) -> None:
    headers = signed(url=url) | {"host": "evil.example", "x-forwarded-host": "evil.example"}

    assert detail(headers) == "wrong_signature"
    assert detail(signed(url=url, covered=("@method", "@authority", "@scheme")), components=["@scheme"]) == (
        "wrong_signature"
    )


def test_the_query_of_the_request_is_a_part_of_the_url() -> None:
    headers = signed(url=f"{URL}?a=1")

    assert verify(headers, query=b"a=1").key_id
    assert detail(headers, query=b"a=2") == "wrong_signature"
    assert detail(headers) == "wrong_signature"


def test_a_body_that_is_not_covered_is_refused() -> None:
    assert detail(signed(has_digest=False)) == "digest_missing"
    assert detail(signed(b"", has_digest=False), b"") == "digest_missing"
    # It is there, but not signed.
    bare = signed(has_digest=False)
    digest = {"Content-Digest": signed()["Content-Digest"]}
    assert detail(bare | digest) == "digest_missing"


def test_an_empty_body_with_its_digest_is_accepted() -> None:
    assert verify(signed(b""), b"").signed == b""


def test_a_component_that_the_source_demands_must_be_covered() -> None:
    headers = signed(covered=("@method", "x-id"), headers={"x-id": "7"})

    assert detail(headers) == "component_not_covered"
    assert verify(headers, components=["@method", "x-id"]).key_id


@pytest.mark.parametrize(
    ("offset_s", "reason"), [(-301, "stale"), (-86_400, "stale"), (31, "in_future"), (86_400, "in_future")]
)
def test_a_signature_outside_its_age_is_refused_both_ways(offset_s: int, reason: str) -> None:
    assert detail(signed(created=NOW + timedelta(seconds=offset_s))) == reason


@pytest.mark.parametrize("offset_s", [-299, 29])
def test_a_signature_inside_its_age_is_accepted(offset_s: int) -> None:
    assert verify(signed(created=NOW + timedelta(seconds=offset_s))).key_id


def test_an_expired_signature_is_refused() -> None:
    assert detail(signed(created=NOW - timedelta(seconds=60), expires=NOW - timedelta(seconds=31))) == "stale"


def test_a_signature_without_its_time_is_refused() -> None:
    headers = signed()
    without = headers["Signature-Input"].replace(f";created={int(NOW.timestamp())}", "")

    assert detail(headers | {"Signature-Input": without}) == "malformed"


def test_a_keyid_names_a_secret_or_is_mapped_to_one() -> None:
    assert verify(signed(keyid="https://example.com/keys#1"), keyids={"https://example.com/keys#1": "k1"}).key_id
    assert detail(signed(keyid="other")) == "unknown_key"


def test_a_retired_key_is_refused_and_recognised_only_when_it_fits() -> None:
    retired = KEY._replace(not_after=NOW - timedelta(seconds=1))

    assert detail(signed(), keys=[retired]) == "retired_key"
    assert detail(signed(private=Ed25519PrivateKey.generate()), keys=[retired]) == "wrong_signature"


def test_the_version_of_a_secret_before_the_current_one_counts_under_the_same_keyid() -> None:
    other = Ed25519PrivateKey.generate()
    keys = [Key("k1", b"", b"", public=other.public_key()), KEY._replace(id="k1:previous")]

    assert verify(signed(), keys=keys).key_id == "k1:previous"
    assert verify(signed(private=other), keys=keys).key_id == "k1"
    assert detail(signed(private=Ed25519PrivateKey.generate()), keys=keys) == "wrong_signature"
    assert detail(signed(), b"{}", keys=keys) == "digest_differs"


def test_of_several_signatures_the_one_with_the_tag_counts() -> None:
    first = signed(label="theirs", tag="other", private=Ed25519PrivateKey.generate(), keyid="x")
    both = signed(headers=first, label="ours", tag="hooks", use_existing_digest=True)

    assert verify(both, tag="hooks").key_id == "k1"
    assert detail(both) == "malformed"
    assert detail(signed(tag="other"), tag="hooks") == "malformed"


@pytest.mark.parametrize("name", ["Signature", "Signature-Input"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "sig",
        "sig=:AA",
        "sig=1",
        "=",
        "sig=();created=1e9",
        'sig=("@query-param")',
        "(" * 4000,
        "a" * 5000,
        "\u00fc",
    ],
)
def test_odd_structured_fields_are_refused(name: str, value: str) -> None:
    assert detail(signed() | {name: value}) in {"missing_header", "malformed", "wrong_signature"}
