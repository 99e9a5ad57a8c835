"""Which topics an installation needs and how they should be, and where the cluster differs; no network."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from contracts.settings import Settings
from contracts.topics import Topic, Topics
from producers.kafka_client import largest_batch_bytes

# Kafka's own default (Kafka 4.1 documentation), so that a topic of ours is never stricter than one made by hand.
_DEFAULT_MAX_MESSAGE_BYTES = 1_048_588
_UNLIMITED = -1
_MAX_MESSAGE = "max.message.bytes"
_RETENTION = "retention.ms"
_SEGMENT = "segment.ms"
_MIN_IN_SYNC = "min.insync.replicas"
# Kinds without which an event still reaches its outcome.
_OPTIONAL = frozenset(
    {"deltas", "cancels", "replies", "deliveries", "undelivered", "batch-jobs", "handovers", "endpoints"}
)
# Kinds whose records go to the partition number of their event.
_BY_NUMBER = frozenset({"results", "retries", "deltas", "cancels", "handovers"})


@dataclass(frozen=True)
class Wanted:
    """A topic as it should be; a replication factor of -1 leaves it to the broker."""

    topic: Topic
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Found:
    """A topic as it is.

    Attributes:
        config: None where the cluster does not tell.
        leaderless: partitions that nobody leads: they can neither be read nor written.
        in_sync: replicas that have everything, by partition.
    """

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] | None
    leaderless: tuple[int, ...] = ()
    in_sync: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """One difference that matters."""

    topic: str
    text: str


def wanted_topics(settings: Settings) -> tuple[Wanted, ...]:
    """Return every topic of an installation, the routes' own result topics included."""
    outputs = frozenset(route.output_topic for route in settings.routes if route.output_topic)
    kafka = settings.kafka
    largest = str(max(_DEFAULT_MAX_MESSAGE_BYTES, largest_batch_bytes(settings.producer)))
    return tuple(
        Wanted(topic, kafka.partitions, kafka.replication_factor, _config(topic, settings) | {_MAX_MESSAGE: largest})
        for topic in Topics(kafka.topic_prefix).table(outputs, has_doors=bool(settings.egress))
    )


def _config(topic: Topic, settings: Settings) -> dict[str, str]:
    config = topic.config()
    if topic.kind == "results":
        # What the gateway promises to find must still be there.
        promised_ms = int(settings.gateway.results_retention_s * 1000)
        config[_RETENTION] = str(max(promised_ms, topic.retention_ms))
    return config


def drifts(wanted: tuple[Wanted, ...], found: Mapping[str, Found], settings: Settings) -> list[Drift]:
    """Return where the cluster differs in a way that matters."""
    event_partitions = max((found[w.topic.name].partitions for w in wanted if _is_events(w, found)), default=0)
    differences = []
    for want in wanted:
        have = found.get(want.topic.name)
        texts = ["missing"] if have is None else _differences(want, have, event_partitions, settings)
        differences += [Drift(want.topic.name, text) for text in texts]
    if not settings.kafka.embedded:
        differences += _forgetful({want.topic.kind: found.get(want.topic.name) for want in wanted})
    return differences


def _forgetful(by_kind: Mapping[str, Found | None]) -> Iterator[Drift]:
    """Yield that the jobs topic forgets what was handed over before the hand-over topic does: it would be done again.

    Records outlive their retention by as much as a segment takes to be full.
    """
    jobs, handovers = by_kind.get("batch-jobs"), by_kind.get("handovers")
    if not (jobs and jobs.config and handovers and handovers.config):
        return
    needed_ms = _kept_ms(handovers.config) + int(handovers.config.get(_SEGMENT, 0))
    if _kept_ms(jobs.config) < needed_ms:
        least = str(_UNLIMITED) if needed_ms == math.inf else f"at least {needed_ms:.0f}"
        text = f"{_RETENTION} is {jobs.config[_RETENTION]}, must be {least}: {handovers.name} keeps its records so long"
        yield Drift(jobs.name, f"{text}, and what it forgets meanwhile is handed over again")


def _kept_ms(config: Mapping[str, str]) -> float:
    retention_ms = int(config.get(_RETENTION, _UNLIMITED))
    is_deleted = "delete" in (config.get("cleanup.policy") or "delete")
    return retention_ms if is_deleted and retention_ms != _UNLIMITED else math.inf


def blockers(wanted: tuple[Wanted, ...], found: Mapping[str, Found], *, hands_over: bool = False) -> list[str]:
    """Return what a worker cannot start with: a topic is missing, or a partition for a result or retry would be.

    Args:
        wanted: as the topics should be.
        found: as they are.
        hands_over: the hand-over topic is needed as well.

    Other drift is for `penstock topics verify`: it does not lose, reorder or repeat anything.
    """
    kinds = _OPTIONAL - {"handovers"} if hands_over else _OPTIONAL
    needed = [want for want in wanted if want.topic.kind not in kinds]
    texts = [f"topic {want.topic.name} is missing" for want in needed if want.topic.name not in found]
    event_partitions = max((found[w.topic.name].partitions for w in wanted if _is_events(w, found)), default=0)
    for want in needed:
        have = found.get(want.topic.name)
        if have is not None and want.topic.kind in _BY_NUMBER and have.partitions < event_partitions:
            texts.append(_too_few(have, event_partitions))
    return texts


def _too_few(have: Found, event_partitions: int) -> str:
    return (
        f"topic {have.name} has {have.partitions} partitions, but an event topic has {event_partitions}: "
        "a result or retry goes to the partition number of its event"
    )


def _is_events(want: Wanted, found: Mapping[str, Found]) -> bool:
    return want.topic.kind == "events" and want.topic.name in found


def _differences(want: Wanted, have: Found, event_partitions: int, settings: Settings) -> Iterator[str]:
    if want.topic.kind in _BY_NUMBER and have.partitions < event_partitions:
        yield _too_few(have, event_partitions).removeprefix(f"topic {have.name} has ")
    # The embedded broker has its own idea of partitions and nothing to configure.
    if settings.kafka.embedded:
        return
    if have.partitions < want.partitions:
        yield f"{have.partitions} partitions, configured are {want.partitions}"
    if have.replication_factor < want.replication_factor:
        yield f"{have.replication_factor} replicas, configured are {want.replication_factor}"
    if have.leaderless:
        yield f"no broker leads partition {_numbers(have.leaderless)}: nothing of it is read or written until one does"
    if have.config is None:
        yield "its configuration cannot be read"
        return
    least = min(int(have.config.get(_MIN_IN_SYNC, 1)), have.replication_factor)
    short = [number for number, count in have.in_sync.items() if count < least and number not in have.leaderless]
    if short:
        yield f"too few replicas of partition {_numbers(short)} are in sync, must be {least}: nothing is written to it"
    yield from _config_differences(want.config, have.config, largest_batch_bytes(settings.producer))


def _numbers(partitions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(partitions)))


def _config_differences(want: Mapping[str, str], have: Mapping[str, str], largest_bytes: int) -> Iterator[str]:
    for name in ("cleanup.policy", "message.timestamp.type"):
        # A list of policies has no order.
        if set((have.get(name) or "").split(",")) != set(want[name].split(",")):
            yield f"{name} is {have.get(name)}, must be {want[name]}"
    retention_ms = int(have.get(_RETENTION, _UNLIMITED))
    if retention_ms != _UNLIMITED and retention_ms < int(want[_RETENTION]):
        yield f"{_RETENTION} is {retention_ms}, must be at least {want[_RETENTION]}"
    if int(have.get(_MAX_MESSAGE, largest_bytes)) < largest_bytes:
        yield (
            f"{_MAX_MESSAGE} is {have[_MAX_MESSAGE]}, must be at least {largest_bytes} "
            "(producer.max_record_bytes and a full batch)"
        )
