"""The gateway: the HTTP door."""

from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, model_validator

from contracts.settings.idempotency import IdempotencyTable
from contracts.settings.overload import CallerLimit, OverloadSettings
from contracts.settings.secrets import Name, SecretRef
from contracts.settings.section import Form, Lane, ListenHost, Port, Seconds, Section
from contracts.settings.sources import SourceSecret
from contracts.settings.streams import StreamSettings

# What an orderly end takes beyond its limit: flushing, closing clients.
_CLOSING_S = 10.0


class CallerCallbacks(Section):
    """Callbacks to URLs that the caller names, in an event's attribute `callbackurl`."""

    hosts: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = Field(min_length=1)
    """Host names (glob patterns) that it may name, such as `hooks.customer.example` or `*.customer.example`."""
    secrets: tuple[SourceSecret, ...] = Field(min_length=1, max_length=8)
    """Keys that sign its callbacks, `whsec_...` or `whsk_...`; all that are valid sign."""


class FormerKey(Section):
    """A key that still counts while its caller changes over to a new one, or counts already."""

    value: SecretRef
    """Reference to it; as long as `key`."""
    not_after: AwareDatetime | None = None
    """From then on it counts no more; it counts until it is taken out when absent."""


class ApiKey(Section):
    """An own system that may post events and read its results."""

    id: Name
    """Name of the key in logs; owner of the results, tenant of the events."""
    key: SecretRef
    """Reference to the key; callers send it as `Authorization: Bearer <key>`. At least 16 characters."""
    former_keys: tuple[FormerKey, ...] = ()
    """Further keys of the same caller, with the same rights and results: for a rotation, the old one or the next."""
    sources: tuple[str, ...] = ()
    """CloudEvents sources (glob patterns) it may claim; its id, and everything under `<id>/`, when empty."""
    lanes: tuple[Lane, ...] = ("interactive", "standard", "bulk")
    """Lanes it may use."""
    callbacks: CallerCallbacks | None = None
    """Whether it may name a URL for its results; not when absent."""
    limit: CallerLimit | None = None
    """Limits of this key, in each gateway process; none when absent."""


class ResultsViewSettings(Section):
    """An index of the result topics on disk: which outcome lies where. The outcomes themselves stay on Kafka."""

    path: Path | None = None
    """File of the index, of one gateway process alone; without it outcomes older than some minutes are found by
    their ticket only, by reading the topic from its time on."""
    max_bytes: int = Field(default=2 * 2**30, ge=16 * 2**20)
    """Largest size of the file; the oldest entries go first, and those older than gateway.results_retention_s."""


class ReloadSettings(Section):
    """Reload without a restart: `sources`, `gateway.api_keys` and their secrets. SIGHUP asks for one at any time."""

    watch: bool = True
    """Look at the configuration file, and at the files that these secrets refer to, by itself."""
    interval_s: float = Field(default=5.0, ge=0.05, le=3600)
    """How often; a change counts when two looks in a row have found it, so that a file is not read half-written."""


class GatewaySettings(Section):
    """Where the gateway listens and what it accepts."""

    host: ListenHost = "127.0.0.1"
    """Address to listen on; 0.0.0.0 in a container."""
    port: Port = 8080
    """Port to listen on; 0 = any free one, printed at start."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that accept from the one port, each with an event loop and a core of its own. Each also has a producer,
    a view of the results (`results_cache_bytes`, an index file) and bounds of its own."""
    public_url: (
        Annotated[str, Form(r"^https?://[^\s/]+(/[^\s]*)?$", "a URL, such as https://penstock.example.com")] | None
    ) = None
    """Base of the status URLs in answers; relative ones when absent."""
    max_body_bytes: int = Field(default=900_000, ge=1)
    """Largest request body. Below the topics' max.message.bytes, so that a 202 never meets a record that is
    too large."""
    header_timeout_s: Seconds = 10.0
    """A connection that has not sent its headers by then is closed."""
    body_timeout_s: Seconds = 10.0
    """A body that has not arrived by then is answered 408."""
    ack_timeout_s: Seconds = 8.0
    """A record that is not confirmed by then is answered 503 with Retry-After; senders give up after 10 s or more. When
    none of a topic was for so long, others are answered so at once, until one is."""
    shutdown_timeout_s: Seconds = 15.0
    """How long requests in progress may take after SIGTERM."""
    ticket_secret: SecretRef | None = None
    """Reference to the key (32 bytes or more) behind result tickets; the same on every instance. A random one,
    lost at restart, when absent."""
    former_ticket_secrets: tuple[SecretRef, ...] = ()
    """Further keys behind tickets, as long: tickets made with them are read, none is made. For a rotation."""
    results_retention_s: Seconds = 7 * 86400.0
    """How long a result can be asked for; not longer than the result topic keeps it."""
    results_cache_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Memory for recent results; older ones are found on the topic by the ticket's position. As much again, 26 MB at
    most, for which caller's events are on the log."""
    api_keys: tuple[ApiKey, ...] = ()
    """Own systems that may use `/v1/events` and `/v1/invoke`."""
    sync_budget_s: Seconds = 29.0
    """By when `/v1/invoke` must have answered, from the request's arrival: the limit of what stands in front (29 s is
    that of Amazon API Gateway). When it runs out the answer is 202 with the place of the result; the work goes on."""
    sync_margin_s: Seconds = 1.5
    """How much earlier than that waiting ends, so that the answer is out in time; also the end of a last look."""
    sync_predicts: bool = True
    """Answer 202 at once when the latest events of the same lane and type show that the budget cannot be kept."""
    sync_max_waiting: int = Field(default=1000, ge=1, le=4000)
    """Invocations and long polls that wait at a time; beyond it an invocation is refused with 503, before anything
    is accepted, and a long poll is answered at once."""
    streams: StreamSettings = StreamSettings()
    """Answers watched while they are made."""
    results_view: ResultsViewSettings = ResultsViewSettings()
    """Index of the results on disk; off without a path."""
    reload: ReloadSettings = ReloadSettings()
    """Taking over changes without a restart."""
    overload: OverloadSettings = OverloadSettings()
    """Limits per sender and address, and backpressure from the workers' lag."""
    max_connections: int = Field(default=4096, ge=16, le=1_000_000)
    """Connections at a time; fewer when the process may not open so many files. Further ones wait to be taken."""
    idempotency: IdempotencyTable = IdempotencyTable()
    """Recognising repetitions, before the log."""

    @property
    def stop_limit_s(self) -> float:
        """Return how long a stop takes at most; a supervisor of several processes kills who takes longer."""
        return self.shutdown_timeout_s + _CLOSING_S

    @model_validator(mode="after")
    def _largest_body_fits(self) -> "GatewaySettings":
        for key in self.api_keys:
            most_bytes = key.limit.in_flight_bytes if key.limit else None
            if most_bytes is not None and most_bytes < self.max_body_bytes:
                message = (
                    f"api_keys: limit.in_flight_bytes of {key.id} ({most_bytes}) is less than max_body_bytes "
                    f"({self.max_body_bytes}), so that some bodies would never be taken"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _margin_fits(self) -> "GatewaySettings":
        if self.sync_margin_s >= self.sync_budget_s:
            message = f"sync_margin_s ({self.sync_margin_s:g}) must be below sync_budget_s ({self.sync_budget_s:g})"
            raise ValueError(message)
        return self
