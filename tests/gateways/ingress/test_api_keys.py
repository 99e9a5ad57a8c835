"""Senders with a key in a header: what counts as the key, and what never does."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.codec import decode_event
from contracts.errors import BadSignature, ConfigError, InvalidPayload
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.webhooks import WebhookSource
from producers.samples.signing import forge, sign

KEY = "an-api-key-of-enough-bytes"
OTHER = "another-key-of-enough-bytes"
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
BODY = b'{"id":"e1","detail-type":"Order Placed","detail":{"order":7}}'


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("TEST_OTHER", OTHER)
    monkeypatch.setenv("TEST_BASIC", f"user:{KEY}")
    monkeypatch.setenv("TEST_SHORT", "short")


def source(*secrets: dict[str, Any], **settings: Any) -> WebhookSource:
    document = {
        "scheme": "api-key",
        "secrets": secrets or [{"id": "current", "value": "env:TEST_KEY"}],
        "type": "{json:/detail-type}",
        "id": "json:/id",
        "key": "json:/detail/order",
    }
    return WebhookSource("bus", SourceSettings.model_validate(document | settings), Topics())


def test_the_right_key_is_accepted_and_named() -> None:
    accepted = source().accept([(b"x-api-key", KEY.encode())], BODY, NOW)

    event = decode_event(accepted.record.key, accepted.record.value, accepted.record.headers)
    assert (event.id, event.type, event.key, event.data) == ("e1", "Order Placed", b"7", BODY)
    assert dict(accepted.record.headers)["penstock-key-id"] == b"current"


@pytest.mark.parametrize(
    "value", [b"", b"x", KEY.encode() + b" ", KEY.upper().encode(), b"\xff", f"{KEY},{KEY}".encode()]
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(BadSignature):
        source().accept([(b"x-api-key", value)], BODY, NOW)


def test_a_missing_header_is_refused() -> None:
    with pytest.raises(BadSignature, match="missing_header"):
        source().accept([(b"authorization", KEY.encode())], BODY, NOW)


def test_two_headers_are_ambiguous() -> None:
    with pytest.raises(InvalidPayload, match="x-api-key stands there twice"):
        source().accept([(b"x-api-key", KEY.encode())] * 2, BODY, NOW)


@pytest.mark.parametrize(
    ("form", "secret", "value"),
    [
        ("bearer", "env:TEST_KEY", f"Bearer {KEY}"),
        ("basic", "env:TEST_BASIC", "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode()),
    ],
)
def test_the_forms_of_api_destinations_are_understood(form: str, secret: str, value: str) -> None:
    settings = {"key_header": {"header": "Authorization", "form": form}}
    found = source({"id": "current", "value": secret}, **settings)

    assert found.accept([(b"authorization", value.encode())], BODY, NOW).key_id == "current"


def test_a_rotation_accepts_both_keys_and_a_retired_one_no_more() -> None:
    found = source(
        {"id": "new", "value": "env:TEST_KEY"},
        {"id": "old", "value": "env:TEST_OTHER", "not_after": NOW},
    )
    old = [(b"x-api-key", OTHER.encode())]

    assert found.accept(old, BODY, NOW).key_id == "old"
    with pytest.raises(BadSignature, match="retired_key"):
        found.accept(old, BODY, NOW + timedelta(seconds=1))


def test_a_short_key_keeps_the_gateway_from_starting() -> None:
    with pytest.raises(ConfigError, match=r"sources\.bus: secret 'current': has 5 bytes"):
        source({"id": "current", "value": "env:TEST_SHORT"})


@pytest.mark.parametrize("form", ["plain", "bearer", "basic"])
def test_penstock_send_makes_what_is_accepted_and_its_forgeries_are_not(form: str) -> None:
    secret = "env:TEST_BASIC" if form == "basic" else "env:TEST_KEY"
    found = source({"id": "current", "value": secret}, key_header={"form": form})
    value = found.settings.secrets[0].value.resolve()

    def lines(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
        return [(name.encode(), text.encode()) for name, text in headers.items()]

    good = sign(found.settings, value, BODY, event_id="e1", timestamp_s=0)
    bad = forge(found.settings, BODY, event_id="e1", timestamp_s=0)

    assert found.accept(lines(good), BODY, NOW).key_id == "current"
    with pytest.raises(BadSignature):
        found.accept(lines(bad), BODY, NOW)
