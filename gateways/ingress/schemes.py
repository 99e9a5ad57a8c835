"""The built-in signature schemes, as data.

Source: Standard Webhooks 1.0, GitHub "Validating webhook deliveries", Stripe "Webhook signatures", Slack "Verifying
requests" (all checked 2026-11).
"""

from typing import NamedTuple

from contracts.settings import HmacTemplate, SourceSettings
from contracts.settings.sources import KeyHeader

# Decision: 128 bits; a shorter secret can be guessed offline from one captured request.
MIN_KEY_BYTES = 16
_STANDARD_WEBHOOKS_KEY_BYTES = (24, 64)
_ANY_KEY_BYTES = (MIN_KEY_BYTES, 4096)


class Scheme(NamedTuple):
    """How one kind of sender signs, and what only this kind has.

    Attributes:
        key_bytes: smallest and largest decoded key.
        default_id: field with the event's id when neither the source nor a header names one; may be missing.
        twins: second names of headers; a request in which a header and its twin differ is ambiguous.
    """

    template: HmacTemplate
    key_bytes: tuple[int, int] = _ANY_KEY_BYTES
    default_id: str | None = None
    twins: tuple[tuple[bytes, bytes], ...] = ()


SCHEMES = {
    "standard-webhooks": Scheme(
        HmacTemplate(
            signature_header="webhook-signature",
            signed="{id}.{timestamp}.{body}",
            encoding="base64",
            layout="list",
            prefix="v1,",
            timestamp_header="webhook-timestamp",
            id_header="webhook-id",
            key_encoding="base64",
            key_prefix="whsec_",
        ),
        key_bytes=_STANDARD_WEBHOOKS_KEY_BYTES,
        twins=(
            (b"webhook-id", b"svix-id"),
            (b"webhook-timestamp", b"svix-timestamp"),
            (b"webhook-signature", b"svix-signature"),
        ),
    ),
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
        default_id="json:/event_id",
    ),
}


def scheme_of(source: SourceSettings) -> Scheme:
    """Return the scheme of a source, with the source's own tolerance where it has one."""
    if source.scheme == "api-key":
        # Only its rules for keys matter: nothing is signed.
        return Scheme(HmacTemplate(signature_header=(source.key_header or KeyHeader()).header))
    scheme = SCHEMES[source.scheme] if source.hmac is None else Scheme(source.hmac)
    if source.tolerance_s is None:
        return scheme
    return scheme._replace(template=scheme.template.model_copy(update={"tolerance_s": source.tolerance_s}))
