"""The senders of examples/webhooks: a block of YAML accepts what the sender signs, computed here by hand."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from contracts.errors import BadSignature
from contracts.settings import SourceSettings
from gateways.ingress.keys import resolve_keys
from gateways.ingress.schemes import scheme_of
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming
from tests.suites.signatures import Headers, lines_of
from tests.support import ROOT

SOURCES = yaml.safe_load((ROOT / "examples/webhooks/hmac-senders.yaml").read_text("ascii"))["sources"]
SECRET = b"0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
STAMP = str(int(NOW.timestamp()))
BODY = b'{"event":"x","event_id":"e1"}'


def digest(*parts: bytes) -> bytes:
    return hmac.new(SECRET, b"".join(parts), hashlib.sha256).digest()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


SIGNED: dict[str, Headers] = {
    "zoom": {
        "x-zm-signature": f"v0={digest(b'v0:', STAMP.encode(), b':', BODY).hex()}",
        "x-zm-request-timestamp": STAMP,
    },
    "typeform": {"typeform-signature": f"sha256={b64(digest(BODY))}"},
    "paddle": {"paddle-signature": f"ts={STAMP};h1={digest(STAMP.encode(), b':', BODY).hex()}"},
    "hubspot": {
        "x-hubspot-signature-v3": b64(
            digest(b"POST", b"https://hooks.example.com/webhooks/hubspot", BODY, f"{STAMP}123".encode())
        ),
        "x-hubspot-request-timestamp": f"{STAMP}123",
    },
    "linear": {"linear-signature": digest(BODY).hex()},
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_the_block_accepts_what_the_sender_signs_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"PENSTOCK_SECRET_{name.upper()}", SECRET.decode())
    source = SourceSettings.model_validate(SOURCES[name])
    verifier = build_verifier(name, source, resolve_keys(name, source, scheme_of(source)))
    lines = lines_of(SIGNED[name])

    assert verifier.verify(Incoming(lines, BODY), NOW).key_id == "current"
    with pytest.raises(BadSignature, match="wrong_signature"):
        verifier.verify(Incoming(lines, BODY + b" "), NOW)


@pytest.mark.parametrize("name", ["zoom", "paddle", "hubspot"])
@pytest.mark.parametrize(("offset_s", "reason"), [(301, "stale"), (-301, "in_future")])
def test_a_signed_time_is_held_against_the_clock(
    name: str, offset_s: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"PENSTOCK_SECRET_{name.upper()}", SECRET.decode())
    source = SourceSettings.model_validate(SOURCES[name])
    verifier = build_verifier(name, source, resolve_keys(name, source, scheme_of(source)))

    with pytest.raises(BadSignature, match=reason):
        verifier.verify(Incoming(lines_of(SIGNED[name]), BODY), NOW + timedelta(seconds=offset_s))
