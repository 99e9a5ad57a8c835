"""Our signatures satisfy the verifiers that the senders themselves publish."""

import base64
import hashlib
import hmac
import time
from typing import Any

import pytest
import stripe
from gidgethub import ValidationFailure, sansio
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook, WebhookVerificationError

from contracts.errors import ConfigError
from contracts.settings import SourceSettings
from producers.samples.signing import forge, sign

BODY = b'{"id": "evt_1", "text": "gr\xc3\xbc\xc3\x9fe"}'
SECRET = b"whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef")
NOW = int(time.time())


def source(scheme: str, **template: Any) -> SourceSettings:
    document: dict[str, Any] = {"scheme": scheme, "secrets": [{"id": "a", "value": "env:SECRET"}], "type": "t"}
    return SourceSettings.model_validate(document | ({"hmac": template} if template else {}))


def verify_standard_webhooks(headers: dict[str, str], body: bytes) -> None:
    Webhook(SECRET.decode()).verify(body, headers)


def verify_stripe(headers: dict[str, str], body: bytes) -> None:
    stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], SECRET.decode(), tolerance=300)


def verify_slack(headers: dict[str, str], body: bytes) -> None:
    if not SignatureVerifier(SECRET.decode()).is_valid_request(body, headers):
        raise ValueError


def verify_github(headers: dict[str, str], body: bytes) -> None:
    sansio.validate_event(body, signature=headers["x-hub-signature-256"], secret=SECRET.decode())


VERIFIERS = [
    ("standard-webhooks", verify_standard_webhooks, WebhookVerificationError),
    ("stripe", verify_stripe, stripe.SignatureVerificationError),
    ("slack", verify_slack, ValueError),
    ("github", verify_github, ValidationFailure),
]


@pytest.mark.parametrize(("scheme", "verify", "refusal"), VERIFIERS)
def test_the_senders_own_library_accepts_the_signature_and_refuses_a_changed_body(
    scheme: str, verify: Any, refusal: type[Exception]
) -> None:
    headers = sign(source(scheme), SECRET, BODY, event_id="msg_1", timestamp_s=NOW)

    verify(headers, BODY)
    with pytest.raises(refusal):
        verify(headers, BODY.replace(b"evt_1", b"evt_2"))


@pytest.mark.parametrize(("scheme", "verify", "refusal"), VERIFIERS)
def test_a_forgery_has_the_right_form_and_is_refused(scheme: str, verify: Any, refusal: type[Exception]) -> None:
    signed = sign(source(scheme), SECRET, BODY, event_id="msg_1", timestamp_s=NOW)
    forged = forge(source(scheme), BODY, event_id="msg_1", timestamp_s=NOW)

    assert {name: len(value) for name, value in forged.items()} == {name: len(value) for name, value in signed.items()}
    with pytest.raises(refusal):
        verify(forged, BODY)


def test_a_template_signs_timestamp_and_body_in_hex() -> None:
    template = {
        "signature_header": "x-salesforce-signature",
        "timestamp_header": "x-salesforce-timestamp",
        "signed": "{timestamp}.{body}",
    }

    headers = sign(source("hmac", **template), b"secret", BODY, event_id="e", timestamp_s=1_700_000_000)

    expected = hmac.new(b"secret", b"1700000000." + BODY, hashlib.sha256).hexdigest()
    assert headers == {"x-salesforce-signature": expected, "x-salesforce-timestamp": "1700000000"}


def test_a_template_with_pairs_id_prefix_and_base64_key_is_laid_out_as_it_says() -> None:
    template = {
        "signature_header": "x-sig",
        "signed": "{id}:{timestamp}:{body}",
        "algorithm": "sha512",
        "encoding": "base64",
        "layout": "pairs",
        "prefix": "v1",
        "timestamp_pair": "t",
        "id_header": "x-id",
        "key_encoding": "base64",
        "key_prefix": "whsec_",
    }

    headers = sign(source("hmac", **template), SECRET, BODY, event_id="e-1", timestamp_s=17)

    digest = hmac.new(b"0123456789abcdef0123456789abcdef", b"e-1:17:" + BODY, hashlib.sha512).digest()
    assert headers == {"x-sig": f"t=17,v1={base64.b64encode(digest).decode()}", "x-id": "e-1"}


def test_a_template_can_be_told_to_be_each_built_in_scheme() -> None:
    github = {"signature_header": "x-hub-signature-256", "prefix": "sha256="}
    slack = {
        "signature_header": "x-slack-signature",
        "timestamp_header": "x-slack-request-timestamp",
        "signed": "v0:{timestamp}:{body}",
        "prefix": "v0=",
    }

    for scheme, template in (("github", github), ("slack", slack)):
        by_template = sign(source("hmac", **template), SECRET, BODY, event_id="e", timestamp_s=NOW)
        assert by_template == sign(source(scheme), SECRET, BODY, event_id="e", timestamp_s=NOW)


def test_a_secret_that_is_not_base64_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="base64"):
        sign(source("standard-webhooks"), b"whsec_not base64!", BODY, event_id="e", timestamp_s=NOW)
