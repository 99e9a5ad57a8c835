"""What the endpoints work with: built once from the settings, handed to every handler."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from contracts.codec import Position
from contracts.envelope import ReplyAddress
from contracts.errors import ConfigError
from contracts.settings import GatewaySettings, Settings, Unusable
from contracts.settings.egress import CallerCallbackDoor
from contracts.settings.marks import Path, Problem
from contracts.topics import LANES, Topics
from gateways.egress.forecast import Forecast
from gateways.egress.live import Live
from gateways.egress.outcomes import Accepted, Outcome
from gateways.egress.reading import reader_config
from gateways.egress.replies import Replies
from gateways.egress.results import ResultsView
from gateways.egress.tickets import Tickets
from gateways.egress.waiting import Waiters
from gateways.health import Health
from gateways.ingress.admission import Admission
from gateways.ingress.backlog import Backlog
from gateways.ingress.caller_limits import CallerLimits
from gateways.ingress.callers import Callers
from gateways.ingress.claims import Claims
from gateways.ingress.limits import Limits
from gateways.ingress.peers import Peers
from gateways.ingress.secrets import Secrets, SecretStore
from gateways.ingress.sources import Source, Sources, build_sources
from producers.base import Producer
from producers.group_lag import GroupLag


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

    def note_accepted(self, owner: str, event_id: str, accepted: Accepted) -> None:
        """Remember an event of an API caller."""
        ...

    async def outcome_of(self, source: str, event_id: str, position: Position, owner: str = "") -> Outcome | None:
        """Return the outcome of an event of an API key, of a webhook's without owner; None while there is none.

        Raises:
            UnknownResult: too old.
            LogUnavailable: Kafka is away.
            Busy: ask again.
        """
        ...

    async def accepted(self, owner: str, event_id: str, source: str | None, *, within_memory: bool = False) -> Accepted:
        """Return a caller's event: its source, and where it lies; `within_memory` settles for the last minutes.

        Raises:
            UnknownResult: the caller has no such event.
            LogUnavailable: Kafka is away.
            Busy: ask again.
        """
        ...

    async def digest(self, owner: str, event_id: str, accepted: Accepted) -> bytes:
        """Return the digest of an accepted event's body; empty when its record is gone.

        Raises:
            LogUnavailable: Kafka is away.
            Busy: ask again.
        """
        ...


class ReplyReader(Protocol):
    """Where workers send copies of outcomes; gateways.egress.replies.Replies says more."""

    @property
    def address(self) -> ReplyAddress | None:
        """Return where they go; None while none could be read."""
        ...

    def start(self) -> None:
        """Begin; returns at once."""
        ...

    def close(self) -> None:
        """End."""
        ...


@dataclass(frozen=True)
class Parts:
    """The gateway's parts."""

    settings: GatewaySettings
    topics: Topics
    sources: Sources
    callers: Callers
    secrets: SecretStore
    tickets: Tickets
    producer: Producer
    admission: Admission
    peers: Peers
    limits: Limits
    caller_limits: CallerLimits
    backlog: Backlog
    claims: Claims
    results: Results
    live: Live
    waiters: Waiters
    replies: ReplyReader | None
    health: Health


def build_parts(
    settings: Settings, producer: Producer, results: Results | None = None, replies: ReplyReader | None = None
) -> Parts:
    """Put the parts together; nothing is started.

    Args:
        settings: the whole configuration.
        producer: not started yet.
        results: in place of the view on Kafka, for tests.
        replies: in place of the reader on Kafka, for tests.

    Raises:
        ConfigError: a secret, template or Kafka setting cannot be used.
    """
    topics = Topics(settings.kafka.topic_prefix)
    waiters = Waiters(settings.gateway.sync_max_waiting, Forecast())
    # Without API callers there is nobody to wait for a reply.
    if replies is None and results is None and settings.gateway.api_keys:
        replies = Replies(reader_config(settings.kafka, "penstock-gateway-replies"), topics.replies, waiters.offer)
    listeners: list[Callable[[Outcome], None]] = [waiters.offer]

    def announce(outcome: Outcome) -> None:
        for listener in listeners:
            listener(outcome)

    results = _results_view(settings, topics, announce) if results is None else results
    config = reader_config(settings.kafka, "penstock-gateway-deltas")
    live = Live(config, topics.deltas, settings.gateway.streams, results.outcome_of)
    listeners.append(live.note_outcome)
    secrets = SecretStore(settings.secrets_manager)
    sources, callers = build_senders(settings, topics, secrets.reading())
    # As many bytes again as the producer may hold: bodies that still arrive.
    admission = Admission(settings.producer.max_buffer_bytes)
    overload = settings.gateway.overload
    return Parts(
        settings.gateway,
        topics,
        Sources(sources),
        callers,
        secrets,
        Tickets(settings.gateway.ticket_secret, settings.gateway.former_ticket_secrets),
        producer,
        admission,
        Peers(overload.trusted_proxies),
        Limits(overload, admission),
        CallerLimits(admission, max_websockets=settings.gateway.streams.max_websockets),
        _backlog(settings, topics),
        Claims(settings.gateway.idempotency.max_entries, settings.gateway.idempotency.max_bytes),
        results,
        live,
        waiters,
        replies,
        Health(producer, admission, results_alive=lambda: results.is_alive),
    )


def build_senders(settings: Settings, topics: Topics, reading: Secrets) -> tuple[dict[str, Source], Callers]:
    """Return sources and API callers.

    Raises:
        ConfigError: a secret or template cannot be used; all that cannot be are told at once.
    """
    problems: tuple[Problem, ...] = ()
    sources: dict[str, Source] = {}
    try:
        sources = build_sources(settings.sources, topics, reading)
    except ConfigError as error:
        problems = Unusable.of(error, ("sources",))
    try:
        callers = Callers(settings.gateway.api_keys, caller_door(settings), reading)
    except ConfigError as error:
        raise Unusable([*problems, *Unusable.of(error, ("gateway", "api_keys"))]) from error
    if problems:
        raise Unusable(problems)
    return sources, callers


def sender_problems(settings: Settings, reading: Secrets, told: Collection[Path]) -> list[Problem]:
    """Return what of sources and API callers cannot be used, but for the places that were told of already."""
    try:
        build_senders(settings, Topics(settings.kafka.topic_prefix), reading)
    except Unusable as error:
        return [(place, text) for place, text in error.problems if not any(one[: len(place)] == place for one in told)]
    return []


def _backlog(settings: Settings, topics: Topics) -> Backlog:
    overload, group = settings.gateway.overload, settings.worker.app_id
    read: Callable[[str], int | None] = GroupLag(settings.kafka, group).read if overload.max_lag else lambda _: None
    return Backlog(overload, {lane: topics.events(lane) for lane in LANES}, read)


def caller_door(settings: Settings) -> CallerCallbackDoor | None:
    """Return the door that sends callbacks to URLs of callers, if there is one."""
    return next((door for door in settings.egress.values() if isinstance(door, CallerCallbackDoor)), None)


def _results_view(settings: Settings, topics: Topics, on_outcome: Callable[[Outcome], None]) -> ResultsView:
    own = {route.output_topic for route in settings.routes if route.output_topic} - {topics.results}
    return ResultsView(
        settings.kafka,
        (topics.results, *sorted(own)),
        tuple(topics.events(lane) for lane in LANES) if settings.gateway.api_keys else (),
        cache_bytes=settings.gateway.results_cache_bytes,
        retention_s=settings.gateway.results_retention_s,
        on_outcome=on_outcome,
        view=settings.gateway.results_view,
    )
