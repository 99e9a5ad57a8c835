"""Webhook sources: who may send, how the signature is made, what becomes of the body."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, IPvAnyNetwork, StringConstraints, model_validator

from contracts.settings.handshakes import HandshakeSettings
from contracts.settings.idempotency import IdempotencySettings
from contracts.settings.overload import RateLimit
from contracts.settings.secrets import Name, SecretRef
from contracts.settings.section import Form, Lane, Seconds, Section
from contracts.settings.signing import (
    ClientCertificateSettings,
    HeaderName,
    HmacTemplate,
    HttpSignatureSettings,
    PublicKeyTemplate,
    PublicUrl,
    SignatureTemplate,
    TwilioSettings,
)

# Schemes that take a section of their own, and its name.
_SECTIONS = {
    "hmac": "hmac",
    "public-key": "public_key",
    "http-signature": "http_signature",
    "client-certificate": "client_certificate",
    "sns": "sns",
}
# Sections that may be absent.
_OPTIONAL_SECTIONS = {"key_header": "api-key", "twilio": "twilio"}
# How far off a sender's time may be at most, where that is not the 300 s of a template.
_TOLERANCES_S = {"sns": 3600.0}
_SIGN_URLS = frozenset({"twilio", "square", "http-signature"})

NO_CONTENT = 204
MediaType = Annotated[
    str,
    Form(
        r"^[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}$",
        "a media type, such as application/json",
        to_lower=True,
    ),
]
# `header:NAME`, `json:/pointer`, `form:NAME`, or a literal with those in braces.
FieldTemplate = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_MEDIA_TYPE = r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}(; ?charset=[a-zA-Z0-9-]{1,32})?$"

TopicArn = Annotated[
    str,
    Form(
        r"^arn:aws(-cn|-us-gov)?:sns:[a-z]{2}(-[a-z]+)+-[0-9]:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$",
        "a topic's ARN, such as arn:aws:sns:eu-central-1:123456789012:NAME",
    ),
]


class SourceSecret(Section):
    """One of a source's secrets; several at once make a rotation without downtime."""

    id: Name
    """Name of this key in logs and metrics."""
    value: SecretRef
    """Reference to the secret."""
    not_before: AwareDatetime | None = None
    """Not accepted before this instant."""
    not_after: AwareDatetime | None = None
    """Not accepted after this instant."""

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether this key counts at an instant."""
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now <= self.not_after)


class KeyHeader(Section):
    """Where a sender that cannot sign puts its key, for scheme api-key."""

    header: HeaderName = "x-api-key"
    """Header that carries the key."""
    form: Literal["plain", "bearer", "basic"] = "plain"
    """plain: the key alone. bearer: `Bearer <key>`. basic: HTTP basic authentication; the secret is `user:password`."""


class SnsTopics(Section):
    """Which topics of Amazon SNS may post here, for scheme sns."""

    topic_arns: tuple[TopicArn, ...] = Field(min_length=1)
    """ARNs of the topics; of any other, nothing is accepted, confirmed or fetched."""
    confirm: bool = True
    """Confirm the subscriptions of these topics by calling their SubscribeURL; false leaves that to you."""
    signature_versions: tuple[Literal["1", "2"], ...] = Field(default=("1", "2"), min_length=1)
    """Versions accepted: 1 is RSA with SHA-1, SNS's default; 2 is RSA with SHA-256, an attribute of the topic."""
    fetch_timeout_s: Seconds = 3.0
    """Limit of fetching a certificate, and of confirming; SNS gives up after 15 s."""


class SourceSettings(Section):
    """One sender of webhooks: `POST /webhooks/<name>`."""

    scheme: Literal[
        "standard-webhooks", "svix", "github", "stripe", "slack", "shopify", "twilio", "square", "salesforce-ens",
        "discord", "sendgrid", "http-signature", "client-certificate", "hmac", "public-key", "api-key", "sns",
        "microsoft-graph",
    ]  # fmt: skip
    """How the sender signs; `hmac`, `public-key`, `http-signature`, `client-certificate` and `sns` take a section of
    their own, `twilio` and `api-key` may."""
    public_url: PublicUrl | None = None
    """The URL of this source as the sender knows it, query included, for schemes that sign it. Never taken from a
    request: Host and X-Forwarded headers are the sender's to choose."""
    hmac: HmacTemplate | None = None
    """The template, for scheme hmac only."""
    public_key: PublicKeyTemplate | None = None
    """The template, for scheme public-key only; the secrets are the sender's public keys."""
    twilio: TwilioSettings | None = None
    """For scheme twilio only: which hashes count."""
    http_signature: HttpSignatureSettings | None = None
    """For scheme http-signature only: what is demanded."""
    client_certificate: ClientCertificateSettings | None = None
    """For scheme client-certificate only: whose certificates count, and which proxy is believed about them."""
    key_header: KeyHeader | None = None
    """For scheme api-key only: where the key is, `x-api-key: <key>` when absent. A key proves who sends, not what."""
    sns: SnsTopics | None = None
    """The topics, for scheme sns only."""
    secrets: tuple[SourceSecret, ...] = ()
    """The source's secrets, at least one; there is no source without a verifier. None for scheme sns, whose messages
    are verified by certificate."""
    tolerance_s: Seconds | None = None
    """Overrides how far the sender's time may be off; the scheme's own (300 s) when absent."""
    ce_source: str | None = Field(default=None, min_length=1, max_length=256)
    """CloudEvents source of the events; the name of this section when absent."""
    type: FieldTemplate
    """CloudEvents type: literal text with {header:NAME}, {json:/pointer} and {form:NAME} in it, as
    `com.github.{header:x-github-event}`."""
    id: FieldTemplate | None = None
    """Where the event's id comes from, `header:NAME`, `json:/pointer` or `form:NAME`; the scheme's id, else a digest of
    the body."""
    key: FieldTemplate | None = None
    """Partition key, the unit of order: `header:NAME`, `json:/pointer` or `form:NAME`; the event's id (no order) when
    absent."""
    subject: FieldTemplate | None = None
    """CloudEvents subject."""
    lane: Lane = "standard"
    """Which lane the events take."""
    content_types: tuple[MediaType, ...] = ()
    """Media types that it may send, such as `application/json`; any, and none, when empty: the signature covers the
    body, and what is in it is for the worker to judge. An event of another type is refused with 415."""
    success_status: Literal[200, 201, 202, 204] = 202
    """Status of the answer after the ack, for senders that insist on one."""
    success_body: str | None = Field(default=None, max_length=4096)
    """Body of that answer, for senders that read it, such as `<Response/>` for Twilio or nothing at all; where the
    result will be, as JSON, when absent."""
    success_content_type: Annotated[str, Form(_MEDIA_TYPE, "a content type, such as text/plain; charset=utf-8")] = (
        "text/plain; charset=utf-8"
    )
    """Content type of `success_body`."""
    handshakes: HandshakeSettings = HandshakeSettings()
    """Requests with which the sender checks this URL; answered, never an event."""
    max_body_bytes: int | None = Field(default=None, ge=1)
    """Overrides the gateway's limit, downwards."""
    allow_networks: tuple[IPvAnyNetwork, ...] = Field(default=(), max_length=1024)
    """Networks that may send; others get 403, unread. All may when empty. Behind proxies see
    `gateway.overload.trusted_proxies`. A signature is needed all the same."""
    limit: RateLimit | None = None
    """Limit of this source's verified events; not limited when absent."""
    idempotency: IdempotencySettings = IdempotencySettings()
    """How the sender's repetitions are recognised."""

    @property
    def template(self) -> SignatureTemplate | None:
        """Return the source's own template, if its scheme takes one."""
        return self.hmac or self.public_key

    @model_validator(mode="after")
    def _sections_go_with_scheme(self) -> "SourceSettings":
        for scheme, section in _SECTIONS.items():
            if (self.scheme == scheme) != (getattr(self, section) is not None):
                message = f"scheme {scheme} and the section `{section}` belong together"
                raise ValueError(message)
        for section, scheme in _OPTIONAL_SECTIONS.items():
            if getattr(self, section) is not None and self.scheme != scheme:
                message = f"the section `{section}` belongs to scheme {scheme}"
                raise ValueError(message)
        if self._signs_url and self.public_url is None:
            message = f"scheme {self.scheme} signs the URL, so public_url is needed: the URL as the sender knows it"
            raise ValueError(message)
        return self

    @property
    def _signs_url(self) -> bool:
        return self.scheme in _SIGN_URLS or (self.template is not None and "{url}" in self.template.signed)

    @model_validator(mode="after")
    def _has_secrets(self) -> "SourceSettings":
        if (self.scheme == "sns") == bool(self.secrets):
            message = "secrets: at least one is needed, except with scheme sns, which has none"
            raise ValueError(message)
        if len({secret.id for secret in self.secrets}) != len(self.secrets):
            message = "two secrets have one id"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> "SourceSettings":
        if self.success_status == NO_CONTENT and self.success_body:
            message = "success_body: an answer 204 has none"
            raise ValueError(message)
        wanted = self.handshakes
        if wanted != HandshakeSettings() and self.scheme == "sns":
            message = "handshakes: scheme sns has its own, `sns.confirm`"
            raise ValueError(message)
        if wanted.slack and self.scheme != "slack":
            message = "handshakes.slack belongs to scheme slack"
            raise ValueError(message)
        if wanted.salesforce_ens and self.scheme not in {"salesforce-ens", "hmac"}:
            message = "handshakes.salesforce_ens belongs to scheme salesforce-ens"
            raise ValueError(message)
        if (wanted.crc or wanted.zoom) and self.scheme != "hmac":
            # Their answer is an HMAC of what they ask with the secret: never with one that is an API key.
            message = "handshakes.crc and handshakes.zoom belong to scheme hmac"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _window_covers_tolerance(self) -> "SourceSettings":
        # A delivery may be replayed as long as its time is accepted: from that much ahead to that much behind.
        own_s = self.template.tolerance_s if self.template else None
        other_s = self.http_signature.max_age_s if self.http_signature else _TOLERANCES_S.get(self.scheme, 300.0)
        tolerance_s = self.tolerance_s or own_s or other_s
        if self.idempotency.by != "none" and self.idempotency.window_s < 2 * tolerance_s:
            message = (
                f"idempotency.window_s must be at least twice the tolerance of the sender's time, {tolerance_s:g} s"
            )
            raise ValueError(message)
        return self
