"""Signature schemes as data: what a sender signs and how it is written, for HMAC and for public keys."""

import re
from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, field_validator, model_validator

from contracts.settings.secrets import Name
from contracts.settings.section import Form, Seconds, Section

HeaderName = Annotated[
    str,
    Form(
        r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$", "a header's name, such as x-signature, without a colon", to_lower=True
    ),
]
# A query stays as it is, a fragment is never sent; no user information, which no sender signs in one way.
PublicUrl = Annotated[
    str,
    Form(
        r"^https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?/[!-~]{0,1024}$",
        "the whole URL as the sender knows it, such as https://host/webhooks/NAME",
        max_length=1400,
    ),
]


# What a template of signed text may name.
SIGNED_NAMES = ("body", "id", "timestamp", "url")


class SignatureTemplate(Section):
    """What a sender signs and where it writes the signature."""

    signature_header: HeaderName
    """Header that carries the signature."""
    signed: Annotated[
        str, Form(r"\{body\}([^{}]*\{timestamp\})?$", "a template with {body} at its end; only {timestamp} may follow")
    ] = "{body}"
    """Signed text: literal characters with {id}, {timestamp}, {url} (the source's `public_url`) and, at the end,
    {body}; only {timestamp} may come behind it."""
    encoding: Literal["hex", "base64"] = "hex"
    """How the signature is written."""
    layout: Literal["plain", "list", "pairs"] = "plain"
    """plain: one signature behind `prefix`. list: entries separated by spaces, each behind `prefix`. pairs:
    `t=...,v1=...` separated by commas."""
    pair_separator: Literal[",", ";"] = ","
    """With layout pairs: what stands between them."""
    prefix: str = Field(default="", max_length=32)
    """What stands before a signature: `sha256=`, `v0=`, `v1,`; with layout pairs the name of the signature's
    pair, `v1`."""
    timestamp_header: HeaderName | None = None
    """Header with the sender's time."""
    timestamp_pair: str | None = Field(default=None, max_length=16)
    """With layout pairs: the pair with the sender's time."""
    timestamp_unit: Literal["s", "ms"] = "s"
    """Whether the sender's time is in Unix seconds or milliseconds."""
    id_header: HeaderName | None = None
    """Header with the event's id."""
    key_prefix: str = Field(default="", max_length=16)
    """What is cut off the secret's text before decoding: `whsec_`."""
    tolerance_s: Seconds = 300.0
    """How far the sender's time may be off, both ways; only where the scheme signs a timestamp."""

    @field_validator("signed")
    @classmethod
    def _known_names(cls, signed: str) -> str:
        unknown = sorted(set(re.findall(r"\{(.*?)\}", signed)).difference(SIGNED_NAMES))
        if unknown:
            message = f"unknown {{{unknown[0]}}}; there are: {', '.join(f'{{{name}}}' for name in SIGNED_NAMES)}"
            raise ValueError(message)
        return signed

    @model_validator(mode="after")
    def _consistent(self) -> "SignatureTemplate":
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


class HmacTemplate(SignatureTemplate):
    """An HMAC signature scheme as data; the built-in schemes are values of this type too."""

    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    """Hash of the HMAC."""
    key_encoding: Literal["raw", "base64", "hex"] = "raw"
    """How the secret's text becomes the key's bytes."""


class PublicKeyTemplate(SignatureTemplate):
    """A public-key signature scheme as data; the secrets of such a source are the sender's public keys."""

    algorithm: Literal["ed25519", "ecdsa-p256-sha256"]
    """Kind of the signature; one of ECDSA is written as DER."""
    key_encoding: Literal["hex", "base64", "der", "pem"] = "pem"
    """How the public key is written. hex, base64: its raw bytes (ed25519: 32; ECDSA: the point). der: base64 of its
    SubjectPublicKeyInfo. pem: the same between BEGIN and END lines."""


class TwilioSettings(Section):
    """What of Twilio's signatures counts."""

    algorithms: tuple[Literal["sha1", "sha256"], ...] = Field(default=("sha1",), min_length=1)
    """Hashes accepted: sha1 is Twilio's usual one; sha256 is what the header X-Twilio-Webhooks-Signature-Settings can
    ask for, with a shared key among the source's secrets."""


class HttpSignatureSettings(Section):
    """What of an HTTP Message Signature (RFC 9421) is demanded; a Content-Digest (RFC 9530) always is."""

    algorithm: Literal[
        "ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256", "hmac-sha256"
    ]
    """The one algorithm accepted; what a request says about it is compared, never followed."""
    key_encoding: Literal["raw", "hex", "base64", "der", "pem"] = "pem"
    """How the keys are written: raw for hmac-sha256's text, hex and base64 for hmac-sha256 and ed25519, pem, or der
    (base64 of a SubjectPublicKeyInfo) for public keys."""
    components: tuple[str, ...] = ("@method", "@target-uri")
    """What a signature must cover besides the content-digest. `@target-uri`, `@authority`, `@scheme` and `@path` are
    taken from the source's `public_url`."""
    max_age_s: Seconds = 300.0
    """How old a signature may be by its `created`, which must be there; `expires` counts as well."""
    tag: str | None = Field(default=None, max_length=128)
    """The tag that a signature must have; needed where a request may carry several signatures."""
    keyids: dict[str, Name] = Field(default_factory=dict)
    """Which secret a `keyid` means; the secret's id when absent."""

    @property
    def is_hmac(self) -> bool:
        """Tell whether both sides have one secret, in place of a key pair."""
        return self.algorithm == "hmac-sha256"

    @field_validator("components")
    @classmethod
    def _plain_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not name.isascii() or name != name.lower() or '"' in name or "\\" in name or not name.isprintable():
                message = f"{name!r} is not the lower-case name of a component"
                raise ValueError(message)
        return names


class CertificateSubject(Section):
    """A client certificate that may send."""

    id: Name
    """Name in logs and metrics."""
    subject: str = Field(min_length=3, max_length=1024)
    """With form text: the header's whole value. With form certificate: the subject as RFC 4514 writes it
    (`CN=hooks.partner.example,O=Partner,C=DE`), or one of its alternative names: `DNS:name`, `URI:text`,
    `email:address`."""


class ClientCertificateSettings(Section):
    """A client certificate that a proxy in front has verified, and names in a header."""

    header: HeaderName
    """Header in which the proxy puts the certificate or its subject; it must take the sender's own out."""
    form: Literal["text", "certificate"] = "text"
    """text: the subject as the proxy writes it, compared as a whole. certificate: the whole certificate, as the header
    Client-Cert of RFC 9440 carries it."""
    subjects: tuple[CertificateSubject, ...] = Field(min_length=1)
    """Whose certificates count."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(min_length=1)
    """Networks from which the proxy connects; from anywhere else nothing is believed."""
    proof_header: HeaderName = "x-proxy-proof"
    """Header in which the proxy proves itself with one of the source's secrets."""

    @model_validator(mode="after")
    def _two_headers(self) -> "ClientCertificateSettings":
        if self.header == self.proof_header:
            message = "header and proof_header must be two"
            raise ValueError(message)
        return self
