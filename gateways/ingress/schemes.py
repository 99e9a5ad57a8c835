"""The built-in signature schemes, as data.

Source: Standard Webhooks 1.0 (v1, v1a), Svix, GitHub "Validating webhook deliveries", Stripe "Webhook signatures",
Slack "Verifying requests", Shopify "Verify webhooks", Square "Verify and validate an event notification", Marketing
Cloud ENS "Notification Signing", Discord "Validating Security Request Headers", SendGrid "Event Webhook security
features" (all checked 2026-11).
"""

from collections.abc import Mapping
from typing import NamedTuple

from contracts.settings import HmacTemplate, PublicKeyTemplate, SourceSettings
from contracts.settings.signing import HttpSignatureSettings

# Decision: 128 bits; a shorter secret can be guessed offline from one captured request.
MIN_KEY_BYTES = 16
_STANDARD_WEBHOOKS_KEY_BYTES = (24, 64)
_ANY_KEY_BYTES = (MIN_KEY_BYTES, 4096)
# Vendors whose secrets are 32 characters or more in all their documents: a shorter one was cut when it was copied.
_32_BYTES = (32, 4096)


class KeyForm(NamedTuple):
    """How a secret's text becomes a key.

    Attributes:
        algorithm: hmac, or the kind of the public key.
        encoding: raw, hex, base64, der (in base64) or pem.
        prefix: cut off before decoding.
        key_bytes: smallest and largest decoded key; for HMAC only.
    """

    algorithm: str = "hmac"
    encoding: str = "raw"
    prefix: str = ""
    key_bytes: tuple[int, int] = _ANY_KEY_BYTES


class Scheme(NamedTuple):
    """How one kind of sender signs, and what only this kind has.

    Attributes:
        template: None for a scheme that a template cannot say.
        also: a second way to sign, in the same headers; a key's prefix tells to which way it belongs.
        key_bytes: smallest and largest decoded key of an HMAC.
        default_id: field with the event's id when neither the source nor a header names one; may be missing.
        twins: second names of headers; a request in which a header and its twin differ is ambiguous.
        reads_twins: a twin stands in for a header that is missing.
        repeats_itself: two events may have the same bytes, so that these alone make no delivery a repetition.
    """

    template: HmacTemplate | PublicKeyTemplate | None
    also: PublicKeyTemplate | None = None
    key_bytes: tuple[int, int] = _ANY_KEY_BYTES
    default_id: str | None = None
    twins: Mapping[bytes, bytes] = {}
    reads_twins: bool = False
    other_keys: KeyForm | None = None
    repeats_itself: bool = False

    @property
    def key_forms(self) -> tuple[KeyForm, ...]:
        """Return how the secrets of such a source are written; the first when no prefix tells."""
        if self.template is None:
            return (self.other_keys or KeyForm(key_bytes=self.key_bytes),)
        templates = [self.template] if self.also is None else [self.template, self.also]
        return tuple(_key_form(template, self.key_bytes) for template in templates)


def _key_form(template: HmacTemplate | PublicKeyTemplate, key_bytes: tuple[int, int]) -> KeyForm:
    algorithm = template.algorithm if isinstance(template, PublicKeyTemplate) else "hmac"
    return KeyForm(algorithm, template.key_encoding, template.key_prefix, key_bytes)


def _standard_webhooks(family: str, twin: str, *, reads_twins: bool) -> Scheme:
    """Return Standard Webhooks under the header names of one family."""
    names = {
        "signature_header": f"{family}-signature",
        "timestamp_header": f"{family}-timestamp",
        "id_header": f"{family}-id",
        "signed": "{id}.{timestamp}.{body}",
        "encoding": "base64",
        "layout": "list",
        "key_encoding": "base64",
    }
    return Scheme(
        HmacTemplate.model_validate(names | {"prefix": "v1,", "key_prefix": "whsec_"}),
        PublicKeyTemplate.model_validate(names | {"prefix": "v1a,", "key_prefix": "whpk_", "algorithm": "ed25519"}),
        key_bytes=_STANDARD_WEBHOOKS_KEY_BYTES,
        twins={f"{family}-{part}".encode(): f"{twin}-{part}".encode() for part in ("id", "timestamp", "signature")},
        reads_twins=reads_twins,
    )


SCHEMES = {
    "standard-webhooks": _standard_webhooks("webhook", "svix", reads_twins=False),
    # Svix sends either family, or both.
    "svix": _standard_webhooks("svix", "webhook", reads_twins=True),
    "github": Scheme(
        HmacTemplate(signature_header="x-hub-signature-256", prefix="sha256=", id_header="x-github-delivery")
    ),
    "stripe": Scheme(
        HmacTemplate(
            signature_header="stripe-signature",
            signed="{timestamp}.{body}",
            layout="pairs",
            prefix="v1",
            timestamp_pair="t",
        ),
        default_id="json:/id",
    ),
    "slack": Scheme(
        HmacTemplate(
            signature_header="x-slack-signature",
            signed="v0:{timestamp}:{body}",
            prefix="v0=",
            timestamp_header="x-slack-request-timestamp",
        ),
        key_bytes=_32_BYTES,
        default_id="json:/event_id",
    ),
    "shopify": Scheme(
        HmacTemplate(signature_header="x-shopify-hmac-sha256", encoding="base64", id_header="x-shopify-webhook-id"),
        key_bytes=_32_BYTES,
    ),
    "square": Scheme(
        HmacTemplate(signature_header="x-square-hmacsha256-signature", signed="{url}{body}", encoding="base64"),
        default_id="json:/event_id",
    ),
    "salesforce-ens": Scheme(HmacTemplate(signature_header="x-sfmc-ens-signature", encoding="base64")),
    "discord": Scheme(
        PublicKeyTemplate(
            algorithm="ed25519",
            signature_header="x-signature-ed25519",
            signed="{timestamp}{body}",
            timestamp_header="x-signature-timestamp",
            key_encoding="hex",
        ),
        default_id="json:/id",
    ),
    "sendgrid": Scheme(
        PublicKeyTemplate(
            algorithm="ecdsa-p256-sha256",
            signature_header="x-twilio-email-event-webhook-signature",
            signed="{timestamp}{body}",
            timestamp_header="x-twilio-email-event-webhook-timestamp",
            encoding="base64",
            key_encoding="der",
        )
    ),
    # The rest is verified by code of its own; here stands only what its keys are like.
    "twilio": Scheme(None, key_bytes=_32_BYTES),
    "api-key": Scheme(None),
    "client-certificate": Scheme(None),
    # The longest clientState has 255 characters. "Something in this drive changed" is said in the same words each time.
    "microsoft-graph": Scheme(None, key_bytes=(MIN_KEY_BYTES, 255), repeats_itself=True),
}


def scheme_of(source: SourceSettings) -> Scheme:
    """Return the scheme of a source, with the source's own tolerance where it has one."""
    if source.http_signature is not None:
        return Scheme(None, other_keys=_http_signature_keys(source.http_signature))
    own = source.hmac or source.public_key
    scheme = SCHEMES[source.scheme] if own is None else Scheme(own)
    if source.tolerance_s is None or scheme.template is None:
        return scheme
    return scheme._replace(template=scheme.template.model_copy(update={"tolerance_s": source.tolerance_s}))


def _http_signature_keys(settings: HttpSignatureSettings) -> KeyForm:
    if settings.is_hmac:
        # RFC 2104: a key shorter than the hash weakens it.
        return KeyForm("hmac", settings.key_encoding, key_bytes=_32_BYTES)
    return KeyForm(settings.algorithm, settings.key_encoding)
