"""What the endpoints work with: built once from the settings, handed to every handler."""

from dataclasses import dataclass
from typing import Protocol

from contracts.codec import Position
from contracts.settings import GatewaySettings, Settings
from contracts.settings.egress import CallerCallbackDoor
from contracts.topics import LANES, Topics
from gateways.egress.outcomes import Outcome
from gateways.egress.results import ResultsView
from gateways.egress.tickets import Tickets
from gateways.health import Health
from gateways.ingress.admission import Admission
from gateways.ingress.callers import Callers
from gateways.ingress.webhooks import WebhookSource, build_sources
from producers.base import Producer


class Results(Protocol):
    """Where outcomes are found; gateways.egress.results.ResultsView says more."""

    @property
    def is_alive(self) -> bool:
        """Tell whether it still follows the topics."""
        ...

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def close(self) -> None:
        """End."""
        ...

    def note_accepted(self, owner: str, event_id: str, source: str, position: Position) -> None:
        """Remember an event of an API caller."""
        ...

    async def outcome_of(self, source: str, event_id: str, position: Position) -> Outcome | None:
        """Return the outcome of an event; None while there is none.

        Raises:
            UnknownResult: too old.
            LogUnavailable: Kafka is away.
            Busy: ask again.
        """
        ...

    async def outcome_for(self, owner: str, event_id: str, source: str | None) -> tuple[str, Outcome | None]:
        """Return (source, outcome or None) of a caller's event.

        Raises:
            UnknownResult: the caller has no such event.
            LogUnavailable: Kafka is away.
            Busy: ask again.
        """
        ...


@dataclass(frozen=True)
class Parts:
    """The gateway's parts."""

    settings: GatewaySettings
    topics: Topics
    sources: dict[str, WebhookSource]
    callers: Callers
    tickets: Tickets
    producer: Producer
    admission: Admission
    results: Results
    health: Health


def build_parts(settings: Settings, producer: Producer, results: Results | None = None) -> Parts:
    """Put the parts together; nothing is started.

    Args:
        settings: the whole configuration.
        producer: not started yet.
        results: in place of the view on Kafka, for tests.

    Raises:
        ConfigError: a secret, template or Kafka setting cannot be used.
    """
    topics = Topics(settings.kafka.topic_prefix)
    results = _results_view(settings, topics) if results is None else results
    # As many bytes again as the producer may hold: bodies that still arrive.
    admission = Admission(settings.producer.max_buffer_bytes)
    return Parts(
        settings.gateway,
        topics,
        build_sources(settings.sources, topics),
        Callers(settings.gateway.api_keys, _caller_door(settings)),
        Tickets(settings.gateway.ticket_secret),
        producer,
        admission,
        results,
        Health(producer, admission, results_alive=lambda: results.is_alive),
    )


def _caller_door(settings: Settings) -> CallerCallbackDoor | None:
    return next((door for door in settings.egress.values() if isinstance(door, CallerCallbackDoor)), None)


def _results_view(settings: Settings, topics: Topics) -> ResultsView:
    own = {route.output_topic for route in settings.routes if route.output_topic} - {topics.results}
    return ResultsView(
        settings.kafka,
        (topics.results, *sorted(own)),
        tuple(topics.events(lane) for lane in LANES) if settings.gateway.api_keys else (),
        cache_bytes=settings.gateway.results_cache_bytes,
        retention_s=settings.gateway.results_retention_s,
    )
