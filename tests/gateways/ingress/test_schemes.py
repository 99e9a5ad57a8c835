"""The built-in schemes that are signed with an HMAC, each held against its sender's own library."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
import stripe
from gidgethub.sansio import validate_event
from slack_sdk.signature import Clock, SignatureVerifier
from square.utils.webhooks_helper import verify_signature
from standardwebhooks import Webhook
from svix.webhooks import Webhook as SvixWebhook

from contracts.settings import HmacTemplate, PublicKeyTemplate, SourceSettings
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES, scheme_of
from tests.suites.signatures import Headers, SignatureSuite, StampedSuite, lines_of, template_of

URL = "https://hooks.example.com/webhooks/shop"


class TestStandardWebhooks(StampedSuite):
    scheme = "standard-webhooks"
    signature_header = "webhook-signature"
    stamp_header = "webhook-timestamp"

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
    stamp_header = "x-slack-request-timestamp"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        stamp = str(int(at.timestamp()))
        signature = SignatureVerifier(secret).generate_signature(timestamp=stamp, body=body)
        assert signature
        return {"x-slack-signature": signature, "x-slack-request-timestamp": stamp}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return SignatureVerifier(self.secret, Clock()).is_valid_request(body, headers)


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


class TestSvix(StampedSuite):
    scheme = "svix"
    signature_header = "svix-signature"
    stamp_header = "svix-timestamp"

    def key(self, secret: str, name: str = "current") -> Key:
        return Key(name, secret.encode(), base64.b64encode(secret.encode()))

    def sign(self, body: str, secret: str, at: datetime) -> Headers:
        signature = SvixWebhook(secret.encode()).sign("msg_1", at, body)
        return {"svix-id": "msg_1", "svix-timestamp": str(int(at.timestamp())), "svix-signature": signature}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        SvixWebhook(self.secret.encode()).verify(body, headers)
        return True

    def entries(self, value: str) -> list[str]:
        return [entry for entry in value.split(" ") if entry.startswith("v1,")]

    def test_the_same_under_the_names_of_standard_webhooks_is_accepted(self) -> None:
        signed = self.sign(self.body, self.secret, datetime.now(UTC))
        renamed = {name.replace("svix", "webhook"): value for name, value in signed.items()}

        assert self.is_accepted(self.body.encode(), renamed)
        assert self.is_accepted(self.body.encode(), renamed | signed)
        assert not self.is_accepted(self.body.encode(), signed | {"webhook-id": "msg_2"})


class TestShopify(SignatureSuite):
    scheme = "shopify"
    signature_header = "x-shopify-hmac-sha256"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - Shopify signs no time
        # Its Python library checks another of its signatures only (OAuth); this one is written from its documentation.
        digest = hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()
        return {"x-shopify-hmac-sha256": base64.b64encode(digest).decode()}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return headers == self.sign(body.decode(), self.secret, datetime.now(UTC))

    def test_its_id_is_read_and_told_to_be_unsigned(self) -> None:
        headers = self.sign("{}", self.secret, datetime.now(UTC)) | {"x-shopify-webhook-id": "b54557e4"}

        verified = self.verified(lines_of(headers), b"{}")

        assert (verified.id, verified.signs_id) == ("b54557e4", False)


class TestSquare(SignatureSuite):
    scheme = "square"
    signature_header = "x-square-hmacsha256-signature"
    section: ClassVar[dict[str, Any]] = {"public_url": f"{URL}?shop=1"}
    # Its library refuses a body of nothing.
    bodies = ("{}", '{"a": "\u00fc"}', "not json", "x" * 5000)

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - Square signs no time
        text = f"{URL}?shop=1{body}".encode()
        digest = hmac.new(secret.encode(), text, hashlib.sha256).digest()
        headers = {"x-square-hmacsha256-signature": base64.b64encode(digest).decode()}
        if secret == self.secret:
            assert self.library_accepts(body.encode(), headers)
        return headers

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        accepted: bool = verify_signature(
            request_body=body.decode(),
            signature_header=headers["x-square-hmacsha256-signature"],
            signature_key=self.secret,
            notification_url=f"{URL}?shop=1",
        )
        return accepted

    def test_text_cannot_move_between_the_url_and_the_body(self) -> None:
        headers = self.sign("23", self.secret, datetime.now(UTC))

        assert self.is_accepted(b"23", headers)
        assert not self.is_accepted(b"3", headers)


class TestSalesforceEns(SignatureSuite):
    scheme = "salesforce-ens"
    signature_header = "x-sfmc-ens-signature"

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - no time is signed
        # There is no library; written from its documentation.
        digest = hmac.new(secret.encode(), body.encode(), hashlib.sha256).digest()
        return {"x-sfmc-ens-signature": base64.b64encode(digest).decode()}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return headers == self.sign(body.decode(), self.secret, datetime.now(UTC))


def test_a_source_may_set_its_own_tolerance() -> None:
    source = SourceSettings.model_validate(
        {"scheme": "stripe", "tolerance_s": 7, "type": "t", "secrets": [{"id": "a", "value": "env:A"}]}
    )

    template = scheme_of(source).template
    assert template is not None
    assert template.tolerance_s == 7
    assert template_of("stripe").tolerance_s == 300


@pytest.mark.parametrize("name", sorted(name for name, scheme in SCHEMES.items() if scheme.template))
def test_a_built_in_scheme_is_a_template_that_a_user_could_write(name: str) -> None:
    template = template_of(name)
    kind = PublicKeyTemplate if isinstance(template, PublicKeyTemplate) else HmacTemplate

    assert kind.model_validate(template.model_dump()) == template
