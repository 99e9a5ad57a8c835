"""The one table of topics.

Names are `<prefix>.<plural noun>.v<N>`; event topics have their lane in between. Result partitions must be at least as
many as event partitions, because a result goes to the partition number of its event.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

LANES: tuple[str, ...] = ("interactive", "standard", "bulk")
_EVENTS = re.compile(rf".+\.events\.({'|'.join(LANES)})\.v[0-9]+")
# Where the worker takes up what waits on the retry topic; no event topic is called so.
RETRY_LANE = "retries"
Kind = Literal[
    "events",
    "results",
    "deltas",
    "dead-letters",
    "retries",
    "cancels",
    "replies",
    "deliveries",
    "undelivered",
    "batch-jobs",
    "handovers",
    "endpoints",
]
# Where failed deliveries wait. All of a tier wait equally long, so that each partition is in the order of its dues.
DELIVERY_TIERS: dict[str, float] = {
    "5s": 5.0,
    "1m": 60.0,
    "5m": 300.0,
    "30m": 1800.0,
    "2h": 7200.0,
    "5h": 18000.0,
    "10h": 36000.0,
    "24h": 86400.0,
}

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000


def is_event_topic(name: str) -> bool:
    """Tell whether a topic holds events as they were accepted, whatever the prefix."""
    return _EVENTS.fullmatch(name) is not None


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        kind: what its records are.
        retention_ms: Kafka's retention.ms for topics that we create.
        purpose: one sentence for `penstock topics` and the docs.
        lane: for event topics.
        cleanup: Kafka's cleanup.policy for topics that we create.
    """

    name: str
    kind: Kind
    retention_ms: int
    purpose: str
    lane: str = ""
    cleanup: str = "delete"

    def config(self) -> dict[str, str]:
        """Return the topic configuration that we set and verify."""
        # CreateTime is the producer's clock, which pay-once compares and tickets carry.
        config = {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "message.timestamp.type": "CreateTime",
        }
        # Only closed segments are deleted, and the broker's default closes one a week.
        return config if self.retention_ms >= _DAY_MS else config | {"segment.ms": str(self.retention_ms)}


class Topics:
    """The topics of one installation.

    Args:
        prefix: `kafka.topic_prefix`.
    """

    def __init__(self, prefix: str = "penstock") -> None:
        self.prefix = prefix
        self.results = f"{prefix}.results.v1"
        self.deltas = f"{prefix}.deltas.v1"
        self.dead_letters = f"{prefix}.dead-letters.v1"
        self.retries = f"{prefix}.retries.v1"
        self.cancels = f"{prefix}.cancels.v1"
        self.undelivered = f"{prefix}.undelivered.v1"
        self.replies = f"{prefix}.replies.v1"
        self.batch_jobs = f"{prefix}.batch-jobs.v1"
        self.handovers = f"{prefix}.handovers.v1"
        self.endpoints = f"{prefix}.endpoints.v1"

    def events(self, lane: str) -> str:
        """Return the event topic of a lane."""
        return f"{self.prefix}.events.{lane}.v1"

    def deliveries(self, tier: str) -> str:
        """Return the topic where failed deliveries wait for as long as a tier says."""
        return f"{self.prefix}.deliveries.{tier}.v1"

    def result_topics(self, outputs: Iterable[str | None]) -> set[str]:
        """Return every result topic: the common one, and the routes' own."""
        return {self.results, *(name for name in outputs if name)}

    def table(self, output_topics: frozenset[str] = frozenset(), *, has_doors: bool = False) -> tuple[Topic, ...]:
        """Return every topic, the routes' own result topics included.

        Args:
            output_topics: the routes' own.
            has_doors: whether results are delivered by doors out.
        """
        week = 7 * _DAY_MS
        events = [
            Topic(self.events(lane), "events", week, f"accepted events of the {lane} lane, body byte for byte", lane)
            for lane in LANES
        ]
        results = [
            Topic(
                name,
                "results",
                week,
                "one terminal record per event: result, or dead-letter, expired or duplicate marker; the journal",
            )
            for name in [self.results, *sorted(output_topics - {self.results})]
        ]
        return (
            *events,
            *results,
            Topic(self.deltas, "deltas", _DAY_MS, "numbered pieces of answers in the making, of streamed events"),
            Topic(
                self.dead_letters, "dead-letters", 30 * _DAY_MS, "events that ended badly: original record plus reason"
            ),
            Topic(self.retries, "retries", week, "events whose next attempt is far away, with what was tried so far"),
            Topic(self.cancels, "cancels", _DAY_MS, "streamed events that their senders do not want answered any more"),
            *(self._delivery_topics() if has_doors else ()),
            Topic(self.replies, "replies", _HOUR_MS, "copies of outcomes for the gateway instances that wait for them"),
            Topic(
                self.batch_jobs,
                "batch-jobs",
                30 * _DAY_MS,
                "batch jobs: what was asked for, and how far each is",
                cleanup="compact,delete",
            ),
            # A job of the provider may take a week.
            Topic(self.handovers, "handovers", 2 * week, "patient events for the provider's batch API"),
        )

    def _delivery_topics(self) -> list[Topic]:
        week = 7 * _DAY_MS
        waiting = [
            # A week beyond the wait: for as long may the process that delivers them be away.
            Topic(
                self.deliveries(tier),
                "deliveries",
                week + int(delay_s * 1000),
                f"failed deliveries, to be repeated {tier} after they were put here",
            )
            for tier, delay_s in DELIVERY_TIERS.items()
        ]
        purpose = "outcomes that a door could not deliver: the record, and why"
        return [
            *waiting,
            Topic(self.undelivered, "undelivered", 30 * _DAY_MS, purpose),
            Topic(
                self.endpoints,
                "endpoints",
                week,
                "state of each callback endpoint: failing, disabled",
                cleanup="compact",
            ),
        ]
