"""Puts the worker's standstill into the report of GET /stuck: per partition, what holds back the commit and why.

Reads the engine's books, nothing else; to be called on the event loop. Cost: one look at every held event.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from contracts.metrics import PAUSED, ROUTE_PAUSED
from contracts.stuck import MAX_KEY_CHARS, Doing, PartitionState, PausedRoute, UnfinishedEvent
from streams.engine.engine import Engine
from streams.engine.item import TP, Item, State
from streams.job import Job
from streams.log_ends import Reach

_DOING: Mapping[State, Doing] = {State.CALLING: "calling", State.RESTING: "resting", State.SETTLING: "settling"}


def partitions(
    engine: Engine,
    committed: Mapping[TP, tuple[int, str]],
    reach: Mapping[TP, Reach],
    stands: Mapping[TP, tuple[str, float]],
    read_to: Mapping[TP, tuple[int | None, int]],
    now_s: float,
) -> tuple[PartitionState, ...]:
    """Return the state of every partition.

    Args:
        engine: whose books are read.
        committed: what the group has.
        reach: how far partitions are read, as of some seconds ago.
        stands: of those whose reading stands, by which check of the watchdog, and for how long.
        read_to: the last records that were handed out; see `Shell.read_to`.
        now_s: loop time.
    """
    oldest: dict[TP, Item] = {}
    for item in engine.held:
        # Taken in the order of offsets, so the first of a partition is the one that holds back its commit.
        oldest.setdefault(item.tp, item)
    found = []
    for tp, (point, unfinished) in sorted(engine.spans().items()):
        position, end = reach[tp][:2] if tp in reach else (None, None)
        newest = read_to[tp][0] if tp in read_to and not unfinished else None
        stands_by, stands_s = stands.get(tp, ("", 0.0))
        found.append(
            PartitionState(
                topic=tp.topic,
                partition=tp.partition,
                commit_point=point,
                committed=committed[tp][0] if tp in committed else None,
                position=position,
                end=end,
                lag=None if end is None else max(0, end - point),
                unfinished=unfinished,
                # Of what lies behind the last record nothing is to be taken: markers, or what compaction has removed.
                untaken=0 if newest is None else max(0, newest + 1 - point),
                stands_by=stands_by,
                stands_s=round(stands_s, 1),
                oldest=event(oldest[tp], engine, now_s) if tp in oldest else None,
            )
        )
    return tuple(found)


def event(item: Item, engine: Engine, now_s: float) -> UnfinishedEvent:
    """Return what is known of an unfinished event."""
    job: Job = item.work
    ahead = _before(item, engine) if item.state is State.QUEUED and engine.waits_behind(item) else None
    left_s = (job.deadline_at - datetime.now(UTC)).total_seconds() if job.route else None
    is_resting = item.state is State.RESTING
    return UnfinishedEvent(
        offset=item.position.offset,
        event_id=job.event.id[:256],
        key=shown_key(job.key),
        route=job.route_name,
        state=_DOING.get(item.state, "waiting_slot") if ahead is None else "waiting_key",
        state_s=round(now_s - item.since, 3),
        age_s=round(now_s - item.taken_at, 3),
        reason=item.reason if is_resting else "",
        attempts=item.attempts,
        next_try_s=round(item.until - now_s, 3) if is_resting and item.until > now_s else None,
        behind_offset=ahead.position.offset if ahead is not None else None,
        deadline_s=None if left_s is None else round(left_s, 3),
    )


def _before(item: Item, engine: Engine) -> Item:
    """Return the event that runs for the item's key: the first that is held of it."""
    return next(held for held in engine.held if held.chain == item.chain)


def shown_key(key: bytes | None) -> str | None:
    """Return a key as it may be shown: printable and short."""
    if key is None:
        return None
    text = repr(key)[2:-1]
    return text if len(text) <= MAX_KEY_CHARS else text[: MAX_KEY_CHARS - 3] + "..."


def paused_intake() -> tuple[str, ...]:
    """Return the limits and faults that pause intake now; the gauge is the one place that knows all of them."""
    return tuple(sorted(values[0] for values in _set(PAUSED.collect())))


def paused_routes() -> tuple[PausedRoute, ...]:
    """Return the routes that wait for their provider or an operator, with the reason."""
    return tuple(sorted((PausedRoute(*values) for values in _set(ROUTE_PAUSED.collect())), key=lambda one: one.route))


def _set(metrics: Iterable[object]) -> Iterable[tuple[str, ...]]:
    for metric in metrics:
        for sample in metric.samples:  # type: ignore[attr-defined]
            if sample.value > 0:
                yield tuple(sample.labels.values())
