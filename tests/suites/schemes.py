"""Every scheme that `penstock send` can sign for: a section of settings, and both halves of its keys."""

import base64
from typing import Any, NamedTuple

from contracts.settings import SourceSettings
from gateways.egress.notify_signing import new_ed25519_pair
from gateways.ingress.keys import resolve_keys
from gateways.ingress.schemes import scheme_of
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Verifier
from producers.samples.private_keys import new_private_key, public_text_of

URL = "https://hooks.example.com/webhooks/shop"
PLAIN = "0123456789abcdef0123456789abcdef"
WHSEC = "whsec_" + base64.b64encode(PLAIN.encode()).decode()
PRIVATE_V1A, PUBLIC_V1A = new_ed25519_pair()
_STAMPED = {"signature_header": "x-sig", "signed": "{timestamp}.{body}", "timestamp_header": "x-time"}


class Case(NamedTuple):
    """One way to sign.

    Attributes:
        section: of the source, without secrets and type.
        held: what the gateway is given.
        signing: what the sender signs with.
        body: of a request; with evt_2 in it, another one.
    """

    section: dict[str, Any]
    held: str = PLAIN
    signing: str = PLAIN
    body: bytes = b'{"id": "evt_1"}'

    @property
    def source(self) -> SourceSettings:
        """Return the settings; the secret is in the variable TEST_HELD."""
        document = {"type": "t", "secrets": [{"id": "current", "value": "env:TEST_HELD"}]}
        return SourceSettings.model_validate(document | self.section)

    def verifier(self) -> Verifier:
        """Return the verifier, when TEST_HELD is set."""
        return build_verifier("shop", self.source, resolve_keys("shop", self.source, scheme_of(self.source)))


def _pair(section: dict[str, Any], algorithm: str, encoding: str) -> Case:
    private = new_private_key(algorithm, encoding)
    return Case(section, public_text_of(private, algorithm, encoding), private.decode())


def _http_signature(algorithm: str, encoding: str) -> dict[str, Any]:
    settings = {"algorithm": algorithm, "key_encoding": encoding, "keyids": {"https://example.com/key": "current"}}
    return {"scheme": "http-signature", "public_url": f"{URL}?shop=1", "http_signature": settings}


CASES = {
    "standard-webhooks": Case({"scheme": "standard-webhooks"}, WHSEC, WHSEC),
    "standard-webhooks v1a": Case({"scheme": "standard-webhooks"}, PUBLIC_V1A, PRIVATE_V1A),
    "svix": Case({"scheme": "svix"}, WHSEC, WHSEC),
    "svix v1a": Case({"scheme": "svix"}, PUBLIC_V1A, PRIVATE_V1A),
    "twilio": Case({"scheme": "twilio", "public_url": URL}),
    "twilio sha256": Case({"scheme": "twilio", "public_url": f"{URL}?a=1", "twilio": {"algorithms": ["sha256"]}}),
    "twilio form": Case(
        {"scheme": "twilio", "public_url": f"{URL}?a=1", "id": "form:MessageSid", "key": "form:From"},
        body=b"MessageSid=evt_1&From=%2B1",
    ),
    "square": Case({"scheme": "square", "public_url": URL}),
    "discord": _pair({"scheme": "discord"}, "ed25519", "hex"),
    "sendgrid": _pair({"scheme": "sendgrid"}, "ecdsa-p256-sha256", "der"),
    "http-signature hmac": Case(_http_signature("hmac-sha256", "raw")),
    "http-signature ed25519": _pair(_http_signature("ed25519", "base64"), "ed25519", "base64"),
    "http-signature ecdsa": _pair(_http_signature("ecdsa-p384-sha384", "pem"), "ecdsa-p384-sha384", "pem"),
    "http-signature rsa": _pair(_http_signature("rsa-pss-sha512", "pem"), "rsa-pss-sha512", "pem"),
    "public-key": _pair(
        {"scheme": "public-key", "public_key": _STAMPED | {"algorithm": "ecdsa-p256-sha256", "key_encoding": "hex"}},
        "ecdsa-p256-sha256",
        "hex",
    ),
    "hmac": Case({"scheme": "hmac", "hmac": _STAMPED}),
    "hmac url": Case(
        {
            "scheme": "hmac",
            "public_url": URL,
            "hmac": _STAMPED | {"signed": "POST{url}{body}{timestamp}", "timestamp_unit": "ms", "encoding": "base64"},
        }
    ),
    "hmac pairs": Case(
        {
            "scheme": "hmac",
            "hmac": {
                "signature_header": "x-sig",
                "signed": "{timestamp}:{body}",
                "layout": "pairs",
                "pair_separator": ";",
                "prefix": "h1",
                "timestamp_pair": "ts",
                "key_encoding": "hex",
            },
        }
    ),
    "client-certificate": Case(
        {
            "scheme": "client-certificate",
            "client_certificate": {
                "header": "x-ssl-client-s-dn",
                "subjects": [{"id": "partner", "subject": "CN=partner"}],
                "trusted_proxies": ["127.0.0.1"],
            },
        }
    ),
} | {name: Case({"scheme": name}) for name in ("github", "stripe", "slack", "shopify", "salesforce-ens", "api-key")}
