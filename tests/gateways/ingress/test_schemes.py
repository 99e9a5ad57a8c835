"""The built-in schemes, each held against its sender's own library."""

import base64
import hashlib
import hmac
from datetime import datetime

import pytest
import stripe
from gidgethub.sansio import validate_event
from slack_sdk.signature import Clock, SignatureVerifier
from standardwebhooks import Webhook

from contracts.settings import HmacTemplate, SourceSettings
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES, scheme_of
from tests.suites.signatures import Headers, SignatureSuite, StampedSuite


class TestStandardWebhooks(StampedSuite):
    scheme = "standard-webhooks"
    signature_header = "webhook-signature"

    def key(self, secret: str, name: str = "current") -> Key:
        return Key(name, secret.encode(), base64.b64encode(secret.encode()))

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        signature = Webhook(secret.encode()).sign("msg_1", at, body)
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": signature,
        }

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        Webhook(self.secret.encode()).verify(body, headers, json_parse=False)
        return True

    def with_stamp(self, headers: Headers, stamp: str) -> Headers:
        return headers | {"webhook-timestamp": stamp}

    def entries(self, value: str) -> list[str]:
        return [entry for entry in value.split(" ") if entry.startswith("v1,")]


class TestStripe(StampedSuite):
    scheme = "stripe"
    signature_header = "stripe-signature"
    secret = "whsec_0123456789abcdef0123456789abcdef"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        header = stripe.WebhookSignature.generate_signature_header(body, secret, int(at.timestamp()))
        return {"stripe-signature": header}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return bool(stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], self.secret, 300))

    def with_stamp(self, headers: Headers, stamp: str) -> Headers:
        _, _, signature = headers["stripe-signature"].partition(",")
        return {"stripe-signature": f"t={stamp},{signature}"}

    def entries(self, value: str) -> list[str]:
        pairs = value.split(",")
        stamps = [pair for pair in pairs if pair.startswith("t=")]
        return [",".join([*stamps, pair]) for pair in pairs if pair.startswith("v1=")]


class TestSlack(StampedSuite):
    scheme = "slack"
    signature_header = "x-slack-signature"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        stamp = str(int(at.timestamp()))
        signature = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
        assert signature
        return {"x-slack-signature": signature, "x-slack-request-timestamp": stamp}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return SignatureVerifier(self.secret, Clock()).is_valid_request(body, headers)

    def with_stamp(self, headers: Headers, stamp: str) -> Headers:
        return headers | {"x-slack-request-timestamp": stamp}


class TestGitHub(SignatureSuite):
    scheme = "github"
    signature_header = "x-hub-signature-256"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - GitHub signs no time
        # No library signs for GitHub; gidgethub confirms this one below.
        digest = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "72d3162e"}
        if secret == self.secret:
            assert self.library_accepts(body.encode(), headers)
        return headers

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        validate_event(body, signature=headers["x-hub-signature-256"], secret=self.secret)
        return True


def test_a_source_may_set_its_own_tolerance() -> None:
    source = SourceSettings.model_validate(
        {"scheme": "stripe", "tolerance_s": 7, "type": "t", "secrets": [{"id": "a", "value": "env:A"}]}
    )

    assert scheme_of(source).template.tolerance_s == 7
    assert SCHEMES["stripe"].template.tolerance_s == 300


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_a_built_in_scheme_is_a_template_that_a_user_could_write(name: str) -> None:
    template = SCHEMES[name].template

    assert HmacTemplate.model_validate(template.model_dump()) == template
