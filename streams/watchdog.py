"""When a standstill is a fault: pure rules over a snapshot, with an injected clock.

Each rule has a condition and a time for which it must hold without a break. Where a restart helps, /healthz fails;
what a restart cannot mend (Kafka or a provider out) is only reported. See docs/operations.md, "Is it stuck?".
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from contracts.settings import WorkerSettings
from contracts.stuck import Problem

# A provider gives up a call at attempt_timeout_s; half as much again is for what surrounds it.
CALL_SHARE = 1.5
# A condition that one look sees may be over at the next.
_GLIMPSE_S = 5.0
# For so long brokers may be silent before they count as not answering. What may be their fault is judged later than
# that: a standstill that began with their silence is never taken for the worker's own, however short its limit is.
KAFKA_SILENCE_S = 25.0
_KAFKA_KNOWN_S = KAFKA_SILENCE_S + _GLIMPSE_S


@dataclass(frozen=True)
class Snapshot:
    """What is looked at.

    Attributes:
        is_wanted: it should be in the group: started, and not stopping.
        may_work: it has a place in the group and a valid lease.
        is_loading: the books of its partitions are not open yet.
        loaded: results that were looked through for them; more than at any attempt before.
        kafka_silent_s: since a broker last answered.
        moves: events started and ended so far.
        waiting: records that are not read yet, and events that have not ended.
        excuse: why nothing needs to move; empty when something should.
        overdue: a call or a rest that should have ended by itself; empty when there is none.
        committed: whatever changes with every commit.
        uncommitted: partitions whose commit point is ahead of the group's.
        consumer_age_s: since the consumer thread last reacted.
        loop_lag_s: how late the event loop is.
    """

    is_wanted: bool = True
    may_work: bool = True
    is_loading: bool = False
    loaded: int = 0
    kafka_silent_s: float = 0.0
    moves: int = 0
    waiting: int = 0
    excuse: str = ""
    overdue: str = ""
    committed: Hashable = None
    uncommitted: int = 0
    consumer_age_s: float = 0.0
    loop_lag_s: float = 0.0

    @property
    def kafka_answers(self) -> bool:
        """Tell whether a broker has answered within the last moments."""
        return self.kafka_silent_s < KAFKA_SILENCE_S


def _no_token(_seen: Snapshot) -> Hashable:
    return None


def _not_measured(_seen: Snapshot) -> float:
    return 0.0


class Rule(NamedTuple):
    """A check.

    Attributes:
        limit_s: how long the condition must hold; at least until the brokers' silence would be known, if it needs them.
        condition: what is wrong, in words; empty when nothing is.
        token: a change of it starts the time anew.
        restart_helps: /healthz fails.
        measured_s: how long the condition has held already, where it measures its own time.
    """

    check: str
    limit_s: Callable[[WorkerSettings], float]
    condition: Callable[[Snapshot, WorkerSettings], str]
    token: Callable[[Snapshot], Hashable] = _no_token
    restart_helps: bool = True
    needs_kafka: bool = False
    measured_s: Callable[[Snapshot], float] = _not_measured

    def lasts_s(self, worker: WorkerSettings) -> float:
        """Return how long the condition must hold."""
        return max(self.limit_s(worker), _KAFKA_KNOWN_S if self.needs_kafka else 0.0)


def _rebalance(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.is_wanted and seen.kafka_answers and not seen.may_work
    return "no valid place in the consumer group" if stuck else ""


def _journal(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.is_wanted and seen.kafka_answers and seen.may_work and seen.is_loading
    return "commits and results of the assigned partitions are not loaded" if stuck else ""


def _progress(seen: Snapshot, _worker: WorkerSettings) -> str:
    can_work = seen.is_wanted and seen.may_work and seen.kafka_answers and not seen.is_loading
    stuck = can_work and seen.waiting > 0 and not seen.excuse
    return f"{seen.waiting} events wait, none starts or ends" if stuck else ""


def _overdue(seen: Snapshot, _worker: WorkerSettings) -> str:
    return seen.overdue if seen.may_work else ""


def _commits(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.may_work and seen.kafka_answers and seen.uncommitted
    return f"finished offsets of {seen.uncommitted} partitions are not committed" if stuck else ""


def _consumer(seen: Snapshot, worker: WorkerSettings) -> str:
    stuck = seen.is_wanted and seen.consumer_age_s > worker.watchdog.consumer_timeout_s
    return f"the consumer thread has not reacted for {seen.consumer_age_s:.0f} s" if stuck else ""


def _loop(seen: Snapshot, worker: WorkerSettings) -> str:
    stuck = seen.loop_lag_s > worker.watchdog.loop_lag_s
    return f"the event loop is {seen.loop_lag_s:.1f} s late" if stuck else ""


def _kafka(seen: Snapshot, _worker: WorkerSettings) -> str:
    return "" if seen.kafka_answers else "no broker answers"


# Order of the reference in docs/operations.md. Limits of 0: the condition has measured the time already.
RULES: tuple[Rule, ...] = (
    Rule("loop", lambda _: 0.0, _loop),
    Rule("consumer", lambda _: 0.0, _consumer),
    Rule(
        "rebalance",
        lambda worker: worker.rebalance_timeout_s + worker.watchdog.rebalance_grace_s,
        _rebalance,
        needs_kafka=True,
    ),
    Rule(
        "journal",
        lambda worker: worker.watchdog.journal_timeout_s,
        _journal,
        lambda seen: seen.loaded,
        needs_kafka=True,
    ),
    Rule("overdue", lambda _: _GLIMPSE_S, _overdue),
    Rule(
        "progress",
        lambda worker: worker.watchdog.progress_timeout_s,
        _progress,
        lambda seen: seen.moves,
        needs_kafka=True,
    ),
    Rule(
        "commits",
        lambda worker: worker.watchdog.commit_timeout_s,
        _commits,
        lambda seen: seen.committed,
        needs_kafka=True,
    ),
    Rule("kafka", lambda _: 0.0, _kafka, restart_helps=False, measured_s=lambda seen: seen.kafka_silent_s),
)
CHECKS = tuple(rule.check for rule in RULES)


class Watchdog:
    """Remembers since when each condition holds.

    Args:
        worker: limits.
        clock: seconds.
    """

    def __init__(self, worker: WorkerSettings, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._clock = clock
        self._since: dict[str, tuple[Hashable, float]] = {}

    def look(self, seen: Snapshot) -> tuple[Problem, ...]:
        """Return what is wrong now; to be called from time to time."""
        return tuple(problem for rule in RULES if (problem := self._apply(rule, seen)) is not None)

    def _apply(self, rule: Rule, seen: Snapshot) -> Problem | None:
        detail = rule.condition(seen, self._worker)
        if not detail:
            self._since.pop(rule.check, None)
            return None
        token, now = rule.token(seen), self._clock()
        before = self._since.get(rule.check)
        if before is None or before[0] != token:
            before = self._since[rule.check] = (token, now)
        for_s = max(now - before[1], rule.measured_s(seen))
        if for_s < rule.lasts_s(self._worker):
            return None
        return Problem(check=rule.check, detail=detail, for_s=round(for_s, 1), restart_helps=rule.restart_helps)
