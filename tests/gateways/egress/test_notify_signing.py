"""Signatures of callbacks, verified by the receivers' own libraries and, for v1a, by `cryptography` alone."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from contracts.errors import ConfigError
from contracts.settings import SecretRef, SourceSecret
from gateways.egress.notify_signing import (
    SigningKey,
    new_ed25519_pair,
    new_hmac_secret,
    resolve_keys,
    signed_headers,
)

ID = "6b1f3e0c-6a0f-5d3e-9c39-4d9d1d3a7f10"
BODY = '{"type":"penstock.result.v1","data":{"text":"\u00fc \u2028"}}'.encode()


def _keys(folder: Path, *secrets: str, **limits: datetime) -> tuple[SigningKey, ...]:
    configured = []
    for number, secret in enumerate(secrets):
        path = folder / f"secret-{number}"
        path.write_text(secret)
        configured.append(SourceSecret(id=f"k{number}", value=SecretRef(f"file:{path}"), **limits))
    return resolve_keys("egress.crm", configured)


def _now() -> datetime:
    return datetime.now(UTC)


def _v1a_verifies(public: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify as the specification says, with nothing of ours."""
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for entry in headers["webhook-signature"].split(" "):
        version, _, signature = entry.partition(",")
        if version == "v1a":
            try:
                key.verify(base64.b64decode(signature), text)
            except InvalidSignature:
                continue
            return True
    return False


def test_standardwebhooks_verifies_v1(tmp_path: Path) -> None:
    secret = new_hmac_secret()
    headers, _ = signed_headers(_keys(tmp_path, secret), ID, BODY, _now())

    standardwebhooks.Webhook(secret).verify(BODY, headers)


def test_svix_verifies_v1(tmp_path: Path) -> None:
    secret = new_hmac_secret()
    headers, _ = signed_headers(_keys(tmp_path, secret), ID, BODY, _now())

    svix.webhooks.Webhook(secret).verify(BODY, headers)


def test_the_signature_is_what_the_specification_shows(tmp_path: Path) -> None:
    # The vector of the libraries' own tests.
    keys = _keys(tmp_path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    instant = datetime.fromtimestamp(1614265330, UTC)

    headers, _ = signed_headers(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', instant)

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


def test_cryptography_verifies_v1a(tmp_path: Path) -> None:
    secret, public = new_ed25519_pair()
    headers, _ = signed_headers(_keys(tmp_path, secret), ID, BODY, _now())

    assert _v1a_verifies(public, headers, BODY)
    assert not _v1a_verifies(public, headers, BODY + b" ")
    assert not _v1a_verifies(new_ed25519_pair()[1], headers, BODY)


def test_a_seed_alone_signs_as_its_pair_does(tmp_path: Path) -> None:
    secret, public = new_ed25519_pair()
    seed = "whsk_" + base64.b64encode(base64.b64decode(secret[5:])[:32]).decode()
    headers, _ = signed_headers(_keys(tmp_path, seed), ID, BODY, _now())

    assert _v1a_verifies(public, headers, BODY)


def test_in_a_rotation_old_and_new_keys_of_both_kinds_verify_each_callback(tmp_path: Path) -> None:
    old, new = new_hmac_secret(), new_hmac_secret()
    pair = new_ed25519_pair()
    headers, ids = signed_headers(_keys(tmp_path, old, new, pair[0]), ID, BODY, _now())

    standardwebhooks.Webhook(old).verify(BODY, headers)
    svix.webhooks.Webhook(new).verify(BODY, headers)
    assert _v1a_verifies(pair[1], headers, BODY)
    assert ids == ("k0", "k1", "k2")
    assert [entry.partition(",")[0] for entry in headers["webhook-signature"].split(" ")] == ["v1", "v1", "v1a"]


def test_only_keys_valid_at_the_moment_sign(tmp_path: Path) -> None:
    now = _now()
    retired = _keys(tmp_path, new_hmac_secret(), not_after=now - timedelta(seconds=1))
    future = _keys(tmp_path, new_hmac_secret(), not_before=now + timedelta(hours=1))
    valid = _keys(tmp_path, new_hmac_secret(), not_before=now, not_after=now)

    headers, _ = signed_headers((*retired, *future, *valid), ID, BODY, now)

    assert headers["webhook-signature"].count("v1,") == 1
    with pytest.raises(ConfigError, match="k0, k0 is valid now"):
        signed_headers((*retired, *future), ID, BODY, now)


def test_every_attempt_has_a_fresh_timestamp_and_the_same_id(tmp_path: Path) -> None:
    keys, now = _keys(tmp_path, new_hmac_secret()), _now()
    first, _ = signed_headers(keys, ID, BODY, now)
    second, _ = signed_headers(keys, ID, BODY, now + timedelta(hours=10))

    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 36_000
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must begin with whsec_ or whsk_"),
        ("whpk_" + base64.b64encode(b"p" * 32).decode(), "must begin with whsec_ or whsk_"),
        ("whsec_" + base64.b64encode(b"s" * 23).decode(), "has 23 bytes, needs 24 to 64"),
        ("whsec_" + base64.b64encode(b"s" * 65).decode(), "has 65 bytes, needs 24 to 64"),
        ("whsec_not base64!", "is not base64"),
        ("whsk_" + base64.b64encode(b"s" * 31).decode(), "has 31 bytes, needs 32"),
        ("whsk_" + base64.b64encode(b"s" * 64).decode(), "its public half does not belong"),
    ],
)
def test_a_secret_that_protects_nothing_is_refused_by_name(tmp_path: Path, secret: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"egress\.crm: secret 'k0'") as caught:
        _keys(tmp_path, secret)

    assert text in str(caught.value)
    assert secret not in str(caught.value)
