"""What the engine moves: one taken event record and how far it has come."""

import functools
from collections.abc import Hashable, Iterable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from contracts.codec import Position
from contracts.repetition import Identity
from streams.engine.repeats import First


class TP(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


def by_topic(tps: Iterable[TP]) -> dict[str, list[int]]:
    """Return, per topic, the numbers of its partitions in order."""
    topics: dict[str, list[int]] = {}
    for tp in sorted(tps):
        topics.setdefault(tp.topic, []).append(tp.partition)
    return topics


_NOWHERE = TP("", -1)
# A worker has few partitions and many events.
_tp = functools.lru_cache(maxsize=4096)(TP)


class ResultRef(NamedTuple):
    """Where a terminal record lies; its partition number is its event's."""

    topic: str
    offset: int


class State(StrEnum):
    """What an unfinished item is doing; `penstock why-stuck` and the drain read it."""

    QUEUED = "queued"
    CALLING = "calling"
    RESTING = "resting"
    SETTLING = "settling"


class Item(msgspec.Struct, eq=False):
    """One event record in the engine.

    Attributes:
        chain: unit of order; items of one chain run one after the other; None = free of order.
        lane: queue it waits in.
        tp: the partition it came from.
        size_bytes: what it counts against the byte limit.
        work: opaque to the engine.
        taken_at, since: loop times of intake and of the last change of state.
        reason: why it rests, a bounded slug.
        generation: of the tenure it was taken in.
        log: which log of its partition it is of; see Ledger.take.
        tenant: whose event it is; lanes are shared fairly between tenants.
        deadline: earliest first within a tenant; any clock, as long as it is the same for all.
        until: loop time at which its rest ends; 0 where that is not known.
        identity: by what its sender's repetitions are recognised; None where none are.
        first: the event that it repeats; None for every other event.
    """

    position: Position
    chain: Hashable | None
    lane: str
    size_bytes: int
    work: Any
    taken_at: float = 0.0
    since: float = 0.0
    state: State = State.QUEUED
    reason: str = ""
    attempts: int = 0
    generation: int = -1
    log: int = 0
    until: float = 0.0
    tenant: str = ""
    deadline: float = 0.0
    identity: Identity | None = None
    first: First | None = None
    tp: TP = _NOWHERE

    def __post_init__(self) -> None:
        """Name the partition."""
        self.tp = _tp(self.position.topic, self.position.partition)
