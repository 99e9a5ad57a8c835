"""When a standstill is a fault: pure rules over a snapshot, with an injected clock.

Each rule has a condition and a time for which it must hold without a break. Where a restart helps, /healthz fails;
what a restart cannot mend (Kafka or a provider out) is only reported. See docs/operations.md, "Is it stuck?".
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
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
# A condition that has a reason now and then must hold for so many limits without it. A lane that waits for its share of
# a full queue looks the same for a while, and a restart would take the paid answers of all others with it.
_BROKEN_LIMITS = 4


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
        waiting: records that could be read and are not, and events that have not ended.
        excuse: why nothing needs to move; empty when something should.
        overdue: a call or a rest that should have ended by itself; empty when there is none.
        unread: of each partition whose fetches are not answered although there is more, where reading stands; None
            where nobody knows whether there is more.
        untaken: the same of those whose records were fetched and are not taken.
        waits_for_room: somebody does, so that these may wait, too; or nobody knows.
        uncommitted: of each partition whose commit point is ahead of the group's, the latter.
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
    unread: Mapping[str, Hashable] = field(default_factory=dict)
    untaken: Mapping[str, Hashable] = field(default_factory=dict)
    waits_for_room: bool = False
    uncommitted: Mapping[str, Hashable] = field(default_factory=dict)
    consumer_age_s: float = 0.0
    loop_lag_s: float = 0.0

    @property
    def kafka_answers(self) -> bool:
        """Tell whether a broker has answered within the last moments."""
        return self.kafka_silent_s < KAFKA_SILENCE_S


def _the_worker(_seen: Snapshot) -> Mapping[str, Hashable]:
    return {"": None}


def _without_reason(_seen: Snapshot) -> bool:
    return False


def _not_measured(_seen: Snapshot) -> float:
    return 0.0


class Rule(NamedTuple):
    """A check.

    Attributes:
        limit_s: how long the condition must hold; at least until the brokers' silence would be known, if it needs them.
        condition: what is wrong, in words; empty when nothing is.
        stands: what it holds for, by name (the worker as a whole has none), and what starts its time anew by a change.
        restart_helps: /healthz fails.
        measured_s: how long the condition has held already, where it measures its own time.
        has_reason: its time stands still; see `_Standing`.
    """

    check: str
    limit_s: Callable[[WorkerSettings], float]
    condition: Callable[[Snapshot, WorkerSettings], str]
    stands: Callable[[Snapshot], Mapping[str, Hashable]] = _the_worker
    restart_helps: bool = True
    needs_kafka: bool = False
    measured_s: Callable[[Snapshot], float] = _not_measured
    has_reason: Callable[[Snapshot], bool] = _without_reason

    def lasts_s(self, worker: WorkerSettings) -> float:
        """Return how long the condition must hold."""
        return max(self.limit_s(worker), _KAFKA_KNOWN_S if self.needs_kafka else 0.0)


def _rebalance(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.is_wanted and seen.kafka_answers and not seen.may_work
    return "no valid place in the consumer group" if stuck else ""


def _journal(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.is_wanted and seen.kafka_answers and seen.may_work and seen.is_loading
    return "commits and results of the assigned partitions are not loaded" if stuck else ""


def _can_work(seen: Snapshot) -> bool:
    return seen.is_wanted and seen.may_work and seen.kafka_answers and not seen.is_loading


def _partition(seen: Snapshot, _worker: WorkerSettings) -> str:
    if not (_can_work(seen) and seen.unread):
        return ""
    is_known = None not in seen.unread.values()
    which = "there are some" if is_known else "there are some, or nobody knows whether there are"
    return f"its broker gives no records, and {which}"


def _untaken(seen: Snapshot, _worker: WorkerSettings) -> str:
    return "fetched records are not taken, although there is room" if _can_work(seen) and seen.untaken else ""


def _progress(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = _can_work(seen) and seen.waiting > 0 and not seen.excuse
    return f"{seen.waiting} events wait, none starts or ends" if stuck else ""


def _overdue(seen: Snapshot, _worker: WorkerSettings) -> str:
    return seen.overdue if seen.may_work else ""


def _commits(seen: Snapshot, _worker: WorkerSettings) -> str:
    stuck = seen.may_work and seen.kafka_answers and seen.uncommitted
    return "finished offsets are not committed" if stuck else ""


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
        lambda seen: {"": seen.loaded},
        needs_kafka=True,
    ),
    Rule("overdue", lambda _: _GLIMPSE_S, _overdue),
    Rule(
        "progress",
        lambda worker: worker.watchdog.progress_timeout_s,
        _progress,
        lambda seen: {"": seen.moves},
        needs_kafka=True,
    ),
    Rule(
        "untaken",
        lambda worker: worker.watchdog.progress_timeout_s,
        _untaken,
        lambda seen: seen.untaken,
        needs_kafka=True,
        has_reason=lambda seen: seen.waits_for_room,
    ),
    Rule(
        "commits",
        lambda worker: worker.watchdog.commit_timeout_s,
        _commits,
        lambda seen: seen.uncommitted,
        needs_kafka=True,
    ),
    Rule(
        "partition",
        lambda worker: worker.watchdog.progress_timeout_s,
        _partition,
        lambda seen: seen.unread,
        restart_helps=False,
        needs_kafka=True,
    ),
    Rule("kafka", lambda _: 0.0, _kafka, restart_helps=False, measured_s=lambda seen: seen.kafka_silent_s),
)
# The watch itself has failed, and no rule was applied: see streams/liveness.py.
WATCH = "watch"
CHECKS = (*(rule.check for rule in RULES), WATCH)


class _Standing(NamedTuple):
    """What a condition holds for.

    Attributes:
        token: a change of it starts the time anew.
        since_s: of its beginning, or of the last look that saw a reason for it.
        began_s: of its beginning; later by all the time for which there was a reason.
    """

    token: Hashable
    since_s: float
    began_s: float

    def lasting_s(self, now_s: float, limit_s: float) -> float:
        """Return how long it has held without a break, or in all where that is long enough by itself."""
        in_all_s = now_s - self.began_s
        return in_all_s if in_all_s >= _BROKEN_LIMITS * limit_s else now_s - self.since_s


class Watchdog:
    """Remembers since when each condition holds.

    Args:
        worker: limits.
        clock: seconds.
    """

    def __init__(self, worker: WorkerSettings, clock: Callable[[], float]) -> None:
        self._worker = worker
        self._clock = clock
        self._looked_at_s = clock()
        self._since: dict[str, dict[str, _Standing]] = {}

    def look(self, seen: Snapshot) -> tuple[Problem, ...]:
        """Return what is wrong now; to be called from time to time."""
        problems = tuple(problem for rule in RULES if (problem := self._apply(rule, seen)) is not None)
        self._looked_at_s = self._clock()
        return problems

    def lasting_s(self, check: str) -> dict[str, float]:
        """Return what a check's condition holds for as of the last look, within its limit or not, and for how long."""
        now = self._clock()
        return {name: now - one.since_s for name, one in self._since.get(check, {}).items()}

    def _stand(self, rule: Rule, seen: Snapshot) -> dict[str, _Standing]:
        """Return what a rule's condition holds for; each by itself: what goes on elsewhere is no progress of it."""
        known, now, found = self._since.get(rule.check, {}), self._clock(), dict[str, _Standing]()
        for name, token in rule.stands(seen).items():
            one = known.get(name)
            if one is None or one.token != token:
                one = _Standing(token, now, now)
            elif rule.has_reason(seen):
                one = _Standing(token, now, one.began_s + now - self._looked_at_s)
            found[name] = one
        return found

    def _apply(self, rule: Rule, seen: Snapshot) -> Problem | None:
        detail, now = rule.condition(seen, self._worker), self._clock()
        since = self._since[rule.check] = self._stand(rule, seen) if detail else {}
        if not since:
            return None
        limit_s, measured_s = rule.lasts_s(self._worker), rule.measured_s(seen)
        lasting = {name: max(one.lasting_s(now, limit_s), measured_s) for name, one in since.items()}
        late = [name for name, for_s in lasting.items() if for_s >= limit_s]
        if not late:
            return None
        first = max(late, key=lasting.__getitem__)
        others = f" and {len(late) - 1} more" if late[1:] else ""
        return Problem(
            check=rule.check,
            detail=f"{first}{others}: {detail}" if first else detail,
            for_s=round(lasting[first], 1),
            restart_helps=rule.restart_helps,
        )
