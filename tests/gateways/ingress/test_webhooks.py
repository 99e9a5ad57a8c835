"""What becomes of a verified request, beyond what the endpoint's tests see with GitHub."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from slack_sdk.signature import SignatureVerifier

from contracts.envelope import Event
from contracts.errors import BadSignature, ConfigError
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.sources import build_sources
from gateways.ingress.webhooks import Accepted, WebhookSource
from producers.samples.signing import query_of, sign
from tests.suites.schemes import CASES
from tests.suites.signatures import lines_of

SECRET = "0123456789abcdef0123456789abcdef"
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET)


def _source(scheme: str, **settings: Any) -> WebhookSource:
    document = {"scheme": scheme, "type": "t", "secrets": [{"id": "current", "value": "env:TEST_SECRET"}]} | settings
    return WebhookSource("shop", SourceSettings.model_validate(document), Topics("acme"))


def _stripe(source: WebhookSource, body: str) -> Event:
    header = stripe.WebhookSignature.generate_signature_header(body, SECRET, int(NOW.timestamp()))
    return source.accept([(b"stripe-signature", header.encode())], body.encode(), NOW).event


def test_stripes_own_id_is_the_events_id() -> None:
    assert _stripe(_source("stripe"), '{"id":"evt_1"}').id == "evt_1"


def test_slacks_own_id_is_the_events_id() -> None:
    stamp, body = str(int(NOW.timestamp())), '{"event_id":"Ev1"}'
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=stamp, body=body)
    assert signature
    headers = [(b"x-slack-signature", signature.encode()), (b"x-slack-request-timestamp", stamp.encode())]

    assert _source("slack").accept(headers, body.encode(), NOW).event.id == "Ev1"


@pytest.mark.parametrize("body", ["{}", "not json", '{"id":{}}', '{"id":"a\\nb"}'])
def test_without_a_usable_id_the_digest_of_the_body_stands_in(body: str) -> None:
    event = _stripe(_source("stripe"), body)

    assert event.id.startswith("sha256-")
    assert event.id == _stripe(_source("stripe"), body).id
    assert event.id != _stripe(_source("stripe"), body + " ").id


def test_source_subject_key_and_lane_come_from_the_settings() -> None:
    source = _source("stripe", ce_source="urn:shop", subject="json:/object", key="json:/customer", lane="bulk")
    body = json.dumps({"id": "evt_1", "object": "charge", "customer": 7})

    header = stripe.WebhookSignature.generate_signature_header(body, SECRET, int(NOW.timestamp()))
    accepted = source.accept([(b"stripe-signature", header.encode())], body.encode(), NOW)

    event = accepted.event
    assert (event.source, event.subject, event.key) == ("urn:shop", "charge", b"7")
    assert (accepted.record.topic, accepted.record.key) == ("acme.events.bulk.v1", b"7")


def test_a_subject_that_is_missing_or_not_clean_is_left_out() -> None:
    source = _source("stripe", subject="json:/object")

    assert _stripe(source, '{"id":"1"}').subject == ""
    assert _stripe(source, '{"id":"1","object":"a\\nb"}').subject == ""


def test_a_sources_own_tolerance_counts() -> None:
    source = _source("stripe", tolerance_s=1)
    header = stripe.WebhookSignature.generate_signature_header("{}", SECRET, int(NOW.timestamp()) - 5)

    with pytest.raises(BadSignature):
        source.accept([(b"stripe-signature", header.encode())], b"{}", NOW)


@pytest.mark.parametrize("settings", [{"type": "a.{x}"}, {"id": "json:x"}, {"key": "{header:}"}, {"subject": "{"}])
def test_a_broken_field_is_refused_at_start_and_named(settings: dict[str, str]) -> None:
    (name,) = settings
    document = {"scheme": "stripe", "type": "t", "secrets": [{"id": "current", "value": "env:TEST_SECRET"}]} | settings

    with pytest.raises(ConfigError, match=rf"sources\.shop\.{name}"):
        build_sources({"shop": SourceSettings.model_validate(document)}, Topics())


def _accepted(name: str, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], **settings: Any) -> Accepted:
    case = CASES[name]
    monkeypatch.setenv("TEST_HELD", case.held)
    source = case.source.model_copy(update=settings)
    body = b'{"id":"evt_1"}'
    stamp = int(NOW.timestamp())
    signed = sign(source, case.signing.encode(), body, event_id="msg_1", timestamp_s=stamp, key_id="current")
    lines = lines_of(headers | signed)
    query = query_of(source, body).encode()
    return WebhookSource("shop", source, Topics()).accept(lines, body, NOW, query=query, peer="127.0.0.1")


@pytest.mark.parametrize(
    ("name", "settings", "is_signed"),
    [
        ("standard-webhooks", {}, True),
        ("svix v1a", {}, True),
        ("stripe", {}, True),
        ("discord", {}, True),
        ("github", {}, False),
        ("shopify", {}, False),
        ("shopify", {"id": "json:/id"}, True),
        ("twilio", {}, False),
        ("salesforce-ens", {}, True),
        ("standard-webhooks", {"id": "header:x-id"}, False),
        ("standard-webhooks", {"id": "header:webhook-id"}, True),
        ("http-signature hmac", {}, True),
        ("http-signature hmac", {"id": "header:x-id"}, False),
        ("api-key", {"id": "json:/id"}, False),
        ("client-certificate", {}, False),
    ],
)
def test_whether_the_events_id_is_covered_by_the_signature_is_told(
    name: str, settings: dict[str, str], is_signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"x-id": "7", "x-github-delivery": "8"}

    accepted = _accepted(name, monkeypatch, more, **settings)

    assert accepted.is_id_signed is is_signed
    assert (accepted.signed is None) is (name in {"api-key", "client-certificate"})
