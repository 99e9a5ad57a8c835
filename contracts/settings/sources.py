"""Webhook sources: who may send, how the signature is made, what becomes of the body."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from contracts.settings.secrets import Name, SecretRef
from contracts.settings.section import Lane, Seconds, Section

HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$", to_lower=True)]
# `header:NAME`, `json:/pointer`, or a literal with {header:NAME} and {json:/pointer} in it.
FieldTemplate = Annotated[str, StringConstraints(min_length=1, max_length=256)]

TopicArn = Annotated[
    str,
    StringConstraints(
        pattern=r"^arn:aws(-cn|-us-gov)?:sns:[a-z]{2}(-[a-z]+)+-[0-9]:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$"
    ),
]


class HmacTemplate(Section):
    """An HMAC signature scheme as data; the built-in schemes are values of this type too."""

    signature_header: HeaderName
    """Header that carries the signature."""
    signed: str = Field(default="{body}", pattern=r"\{body\}$")
    """Signed text: literal characters with {id}, {timestamp} and, at the end, {body}."""
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    """Hash of the HMAC."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written."""
    layout: Literal["plain", "list", "pairs"] = "plain"
    """plain: one signature behind `prefix`. list: entries separated by spaces, each behind `prefix`. pairs:
    `t=...,v1=...` separated by commas."""
    prefix: str = Field(default="", max_length=32)
    """What stands before a signature: `sha256=`, `v0=`, `v1,`; with layout pairs the name of the signature's
    pair, `v1`."""
    timestamp_header: HeaderName | None = None
    """Header with the sender's time in unix seconds."""
    timestamp_pair: str | None = Field(default=None, max_length=16)
    """With layout pairs: the pair with the sender's time."""
    id_header: HeaderName | None = None
    """Header with the event's id."""
    key_encoding: Literal["raw", "base64"] = "raw"
    """How the secret's text becomes the key's bytes."""
    key_prefix: str = Field(default="", max_length=16)
    """What is cut off the secret's text before decoding: `whsec_`."""
    tolerance_s: Seconds = 300.0
    """How far the sender's time may be off, both ways; only where the scheme signs a timestamp."""

    @model_validator(mode="after")
    def _consistent(self) -> "HmacTemplate":
        has_stamp = bool(self.timestamp_header or self.timestamp_pair)
        if ("{timestamp}" in self.signed) != has_stamp:
            message = "{timestamp} in `signed` and a timestamp_header or timestamp_pair belong together"
            raise ValueError(message)
        if "{id}" in self.signed and not self.id_header:
            message = "{id} in `signed` needs an id_header"
            raise ValueError(message)
        if self.timestamp_pair and self.layout != "pairs":
            message = "timestamp_pair needs layout: pairs"
            raise ValueError(message)
        return self


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

    scheme: Literal["standard-webhooks", "github", "stripe", "slack", "hmac", "api-key", "sns"]
    """How the sender signs; `hmac`, `api-key` and `sns` take a section below."""
    hmac: HmacTemplate | None = None
    """The template, for scheme hmac only."""
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
    """CloudEvents type: literal text with {header:NAME} and {json:/pointer} in it, as
    `com.github.{header:x-github-event}`."""
    id: FieldTemplate | None = None
    """Where the event's id comes from, `header:NAME` or `json:/pointer`; the scheme's id, else a digest of the body."""
    key: FieldTemplate | None = None
    """Partition key, the unit of order: `header:NAME` or `json:/pointer`; the event's id (no order) when absent."""
    subject: FieldTemplate | None = None
    """CloudEvents subject."""
    lane: Lane = "standard"
    """Which lane the events take."""
    success_status: Literal[200, 201, 202, 204] = 202
    """Status of the answer after the ack, for senders that insist on one."""
    max_body_bytes: int | None = Field(default=None, ge=1)
    """Overrides the gateway's limit, downwards."""

    @model_validator(mode="after")
    def _template_goes_with_scheme(self) -> "SourceSettings":
        if (self.scheme == "hmac") != (self.hmac is not None):
            message = "scheme hmac and the section `hmac` belong together"
            raise ValueError(message)
        if (self.scheme == "sns") != (self.sns is not None):
            message = "scheme sns and the section `sns` belong together"
            raise ValueError(message)
        if self.key_header is not None and self.scheme != "api-key":
            message = "the section `key_header` belongs to scheme api-key"
            raise ValueError(message)
        if (self.scheme == "sns") == bool(self.secrets):
            message = "secrets: at least one is needed, except with scheme sns, which has none"
            raise ValueError(message)
        if len({secret.id for secret in self.secrets}) != len(self.secrets):
            message = "two secrets have one id"
            raise ValueError(message)
        return self
