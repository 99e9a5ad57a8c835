"""Handshakes: how a source proves to its sender that the URL is meant for it. Each is off unless it stands here."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from contracts.settings.section import Form, Section

Origin = Annotated[
    str,
    Form(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$", "a DNS name, such as eventgrid.azure.net", to_lower=True),
]


class CloudEventsHandshake(Section):
    """Abuse protection of CloudEvents' HTTP 1.1 Web Hooks: OPTIONS with `WebHook-Request-Origin`, answered at once."""

    origins: tuple[Origin, ...] = Field(min_length=1)
    """DNS names of sending systems that get a permission, such as `eventgrid.azure.net`."""
    rate_per_minute: int | None = Field(default=None, ge=1)
    """Most requests a minute that are granted; as many as asked for when absent. It is told, not enforced."""


class EnsHandshake(Section):
    """Registration of a callback of Salesforce Marketing Cloud's Event Notification Service, which is not signed.

    Remove this section when the callback is verified.
    """

    file: Path
    """Where the callback's id and its one-time verification key are appended for you to complete the registration, as
    JSON lines; made with mode 0600, and at most 16 lines long."""


class HandshakeSettings(Section):
    """Requests of a sender that are answered and never become events."""

    slack: bool = False
    """Answer `url_verification`, after its signature; for scheme slack."""
    zoom: bool = False
    """Answer `endpoint.url_validation`, after its signature; for scheme hmac."""
    crc: bool = False
    """Answer GET with `crc_token`, as X (Twitter) asks, with an HMAC of the token by the source's first valid secret;
    for scheme hmac."""
    graph: bool = False
    """Answer POST with `validationToken`, as Microsoft Graph asks; nothing is signed there. Always on with scheme
    microsoft-graph."""
    cloudevents: CloudEventsHandshake | None = None
    """Answer OPTIONS with `WebHook-Request-Origin`; otherwise OPTIONS is 405."""
    salesforce_ens: EnsHandshake | None = None
    """Keep the verification key of a registration; nothing is signed there."""
