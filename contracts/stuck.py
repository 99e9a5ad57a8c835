"""What a worker says about its standstill at GET /stuck, and `penstock why-stuck` puts into words.

Names positions, event ids, shortened keys and slugs; never payloads, prompts or secrets. Durations in seconds.
"""

from typing import Literal

import msgspec

# waiting_slot and waiting_key are both State.QUEUED of the engine: the one needs a slot, the other its predecessor.
Doing = Literal["waiting_slot", "waiting_key", "calling", "resting", "settling"]
Lease = Literal["valid", "stale", "none"]

MAX_KEY_CHARS = 64


class UnfinishedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was taken and has not ended.

    Attributes:
        key: as Python shows the bytes, shortened; None for an event without a key.
        state_s, age_s: time in its state, time since intake.
        reason: why it rests, a slug.
        next_try_s: until its next attempt; None where that is not known.
        behind_offset: of the event of its key that is before it, for waiting_key.
        deadline_s: until it expires; negative when that has passed; None for an event without a route.
    """

    offset: int
    event_id: str
    key: str | None
    route: str
    state: Doing
    state_s: float
    age_s: float
    reason: str = ""
    attempts: int = 0
    next_try_s: float | None = None
    behind_offset: int | None = None
    deadline_s: float | None = None


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of this worker.

    Attributes:
        commit_point: lowest offset that may not be committed yet.
        committed: what the group has; None before the first commit of this assignment.
        position: next offset the consumer reads; end: of the partition; None while not known.
        lag: end - commit point.
        unfinished: events taken and not ended.
        untaken: offsets from the commit point to the last record that was handed out, where none is taken: on their way
            for a moment, or lost on it.
        stands_by, stands_s: the check of the watchdog that tells why the rest is not read, and for how long.
        oldest: of these, the one that holds back the commit.
    """

    topic: str
    partition: int
    commit_point: int
    committed: int | None = None
    position: int | None = None
    end: int | None = None
    lag: int | None = None
    unfinished: int = 0
    untaken: int = 0
    stands_by: str = ""
    stands_s: float = 0.0
    oldest: UnfinishedEvent | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A check of the watchdog that fails.

    Attributes:
        check: slug.
        for_s: how long.
        restart_helps: then /healthz fails too.
    """

    check: str
    detail: str
    for_s: float
    restart_helps: bool


class PausedRoute(msgspec.Struct, frozen=True):
    """A route whose calls wait for its provider or an operator."""

    route: str
    reason: str


class StuckReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker knows about its standstill.

    Attributes:
        state: starting, rebalancing, loading, working, or stopping.
        paused: limits or faults that pause intake.
        events: taken and not ended, by what they are doing; queued covers both kinds of waiting.
        idle_s: since an event last started or ended.
        waits_for: what has to be there before it can start: Kafka, topics.
    """

    app_id: str
    instance_id: str | None
    state: Literal["starting", "rebalancing", "loading", "working", "stopping"]
    generation: int = -1
    lease: Lease = "none"
    kafka_answers: bool = False
    max_in_flight: int
    idle_s: float = 0.0
    waits_for: tuple[str, ...] = ()
    events: dict[str, int] = {}
    paused: tuple[str, ...] = ()
    paused_routes: tuple[PausedRoute, ...] = ()
    problems: tuple[Problem, ...] = ()
    partitions: tuple[PartitionState, ...] = ()
