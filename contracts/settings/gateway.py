"""The gateway: the HTTP door."""

from typing import Annotated

from pydantic import Field

from contracts.settings.secrets import Name, SecretRef
from contracts.settings.section import Lane, Port, Seconds, Section
from contracts.settings.sources import SourceSecret


class CallerCallbacks(Section):
    """Callbacks to URLs that the caller names, in an event's attribute `callbackurl`."""

    hosts: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(min_length=1)
    """Host names (glob patterns) that it may name, such as `hooks.customer.example` or `*.customer.example`."""
    secrets: tuple[SourceSecret, ...] = Field(min_length=1, max_length=8)
    """Keys that sign its callbacks, `whsec_...` or `whsk_...`; all that are valid sign."""


class ApiKey(Section):
    """An own system that may post events and read its results."""

    id: Name
    """Name of the key in logs; owner of the results, tenant of the events."""
    key: SecretRef
    """Reference to the key; callers send it as `Authorization: Bearer <key>`. At least 16 characters."""
    sources: tuple[str, ...] = ()
    """CloudEvents sources (glob patterns) it may claim; its id, and everything under `<id>/`, when empty."""
    lanes: tuple[Lane, ...] = ("interactive", "standard", "bulk")
    """Lanes it may use."""
    callbacks: CallerCallbacks | None = None
    """Whether it may name a URL for its results; not when absent."""


class GatewaySettings(Section):
    """Where the gateway listens and what it accepts."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Port = 8080
    """Port to listen on; 0 = any free one, printed at start."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    """Base of the status URLs in answers; relative ones when absent."""
    max_body_bytes: int = Field(default=900_000, ge=1)
    """Largest request body. Below the topics' max.message.bytes, so that a 202 never meets a record that is
    too large."""
    header_timeout_s: Seconds = 10.0
    """A connection that has not sent its headers by then is closed."""
    body_timeout_s: Seconds = 10.0
    """A body that has not arrived by then is answered 408."""
    ack_timeout_s: Seconds = 8.0
    """A record that is not confirmed by then is answered 503 with Retry-After; senders give up after 10 s or more."""
    shutdown_timeout_s: Seconds = 15.0
    """How long requests in progress may take after SIGTERM."""
    ticket_secret: SecretRef | None = None
    """Reference to the key (32 bytes or more) behind result tickets; the same on every instance. A random one,
    lost at restart, when absent."""
    results_retention_s: Seconds = 7 * 86400.0
    """How long a result can be asked for; not longer than the result topic keeps it."""
    results_cache_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Memory for recent results; older ones are found on the topic by the ticket's position."""
    api_keys: tuple[ApiKey, ...] = ()
    """Own systems that may use `/v1/events`."""
