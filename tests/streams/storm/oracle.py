"""What must hold when all is over, told by the log and by the calls that the model has seen."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from contracts.codec import Position, decode_event, source_position
from contracts.deltas import read_delta
from contracts.errors import PenstockError
from contracts.metrics import PAUSED
from contracts.payloads import DUPLICATE_TYPE
from contracts.settings import RouteSettings
from streams.engine.item import TP
from streams.providers.measured import _calling
from streams.steps.route import Router
from tests.streams.storm.held import held
from tests.streams.storm.log import Entry
from tests.streams.storm.model import Call
from tests.streams.storm.plan import JOURNAL, OTHER, PARTITIONS, TOPICS, TPS
from tests.streams.storm.world import World

# A call that was begun without a task and had no connection is made with the time it had.
_LATE_S = 0.05
# For what an event may be buried.
_REASONS = frozenset({
    "no_route", "undecodable", "cancelled", "attempts_exhausted", "invalid_request", "content_blocked",
    "context_too_long", "output_invalid", "internal", "too_large",
})  # fmt: skip


class _End(NamedTuple):
    """A record that answers another one."""

    number: int
    kind: str


_Ends = Mapping[Position, list[_End]]


def violations(world: World) -> Iterator[str]:
    """Yield everything that does not hold."""
    ends = _ends(world)
    yield from _once(world, ends)
    yield from _ordered(world, ends)
    yield from _paid(world, ends)
    yield from _bounded(world)
    yield from _told(world)
    yield from _previews(world)
    for worker in world.fleet.workers:
        yield from (f"worker {worker.number} holds {what}" for what in held(world.plan, worker))
    for worker in world.fleet.everybody:
        if worker.crash is not None and str(worker.crash) != "not confirmed":
            yield f"worker {worker.number} has crashed: {worker.crash!r}"
    yield from (f"paused by {one.labels}" for family in PAUSED.collect() for one in family.samples if one.value)
    if not any(worker.is_dead for worker in world.fleet.everybody) and _calling["model"]:
        yield f"calls in flight by the metrics: {_calling['model']}"


def _events(world: World) -> Iterator[tuple[TP, Entry, Position]]:
    """Yield all that is on the event topics and the retry topic."""
    for tp in TPS:
        for entry in world.log.records[tp]:
            yield tp, entry, Position(*tp, entry.offset, entry.timestamp_ms)


def _ends(world: World) -> _Ends:
    found: dict[Position, list[_End]] = defaultdict(list)
    for topic in JOURNAL:
        for partition in range(PARTITIONS):
            for entry in world.log.records[TP(topic, partition)]:
                place = source_position(entry.record.headers)
                assert place is not None
                kind = (dict(entry.record.headers).get("ce_type") or b"").decode()
                found[place[1]].append(_End(entry.number, topic if topic.startswith("t.retries") else kind))
    return found


def _once(world: World, ends: _Ends) -> Iterator[str]:
    """Look for what has not exactly one end, and is not committed."""
    there = set()
    for _, _, position in _events(world):
        there.add(position)
        if len(ends.get(position, ())) != 1:
            yield f"{position} has other ends than one: {ends.get(position)}"
    yield from (f"the end of nothing: {position}" for position in ends.keys() - there)
    for tp in TPS:
        if world.log.commits[tp][0] != world.log.ends[tp]:
            yield f"{tp} is committed to {world.log.commits[tp]}, and ends at {world.log.ends[tp]}"


def _ordered(world: World, ends: _Ends) -> Iterator[str]:
    """Look for events of one unit that have not ended in their order."""
    router, units = Router(world.plan.settings.routes), defaultdict[object, list[int]](list)
    for tp, entry, position in _events(world):
        found = ends.get(position)
        if not found or found[0].kind == DUPLICATE_TYPE or tp.topic == TOPICS.retries:
            continue
        try:
            route = router.route(decode_event(entry.record.key, entry.record.value, entry.record.headers))
        except PenstockError:
            continue
        unit = _unit(route, tp, entry)
        if unit is not None:
            units[unit].append(found[0].number)
    yield from (f"the order of {unit}: {numbers}" for unit, numbers in units.items() if numbers != sorted(numbers))


def _unit(route: RouteSettings, tp: TP, entry: Entry) -> object:
    if route.order == "none":
        return None
    if route.order == "partition":
        return tp
    if route.order != "key":
        try:
            account = json.loads(entry.record.value or b"")["account"]
        except ValueError:
            account = None
        if account is not None:
            return tp, type(account), account
    return None if entry.record.key is None else (tp, entry.record.key)


def _paid(world: World, ends: _Ends) -> Iterator[str]:
    """Look for calls that nothing explains."""
    own = Counter[bytes | None]()
    for tp, entry, position in _events(world):
        if tp.topic != TOPICS.retries and all(end.kind != DUPLICATE_TYPE for end in ends.get(position, ())):
            own[entry.record.value] += 1
    calls = defaultdict[int, list[Call]](list)
    for call in world.shared.calls:
        for number in call.numbers:
            calls[number].append(call)
    for number, made in calls.items():
        if own[world.sent[number][0].record.value] == 1:
            yield from (f"event {number} {what}" for what in _odd(world, number, made))


def _odd(world: World, number: int, made: list[Call]) -> Iterator[str]:
    deadline_s = world.deadline_s(number)
    for place, call in enumerate(made):
        if call.start_s > deadline_s + _LATE_S:
            yield f"was called behind its deadline of {deadline_s}: {call}"
        for later in made[place + 1 :]:
            if later.worker != call.worker or _was_away(world, call.worker, call.start_s, later.start_s):
                continue
            if later.start_s < call.end_s:
                # An event whose time is over leaves a call that goes on for the others of it.
                if call.kind != "cancelled" and len(call.numbers) == 1:
                    yield f"was in two calls at a time: {call}, {later}"
            elif number in call.good and world.plan.keeps_all:
                yield f"was called again behind its answer: {call}, {later}"


def _bounded(world: World) -> Iterator[str]:
    """Look for more calls of one event each than a worker has slots."""
    for worker in world.fleet.everybody:
        changes: list[tuple[float, int]] = []
        for call in world.shared.calls:
            # A call of several outlives those of its events whose time is over.
            if call.worker == worker.number and len(call.numbers) == 1 and call.end_s < float("inf"):
                changes += [(call.start_s, 1), (call.end_s, -1)]
        calling = most = 0
        for _, change in sorted(changes):
            calling += change
            most = max(most, calling)
        if most > world.plan.limits.in_flight:
            yield f"worker {worker.number} has made {most} calls at a time"


def _was_away(world: World, worker: int, since_s: float, until_s: float) -> bool:
    """Tell whether a worker's events may have been in other hands."""
    lost_s = world.fleet.everybody[worker].lost_s
    return world.plan.places > 1 and any(since_s <= at_s <= until_s for at_s in lost_s)


def _told(world: World) -> Iterator[str]:
    """Look for outputs of others, odd reasons, and dead letters without a marker."""
    buried = 0
    for topic in (TOPICS.results, OTHER):
        for partition in range(PARTITIONS):
            for entry in world.log.records[TP(topic, partition)]:
                document: dict[str, Any] = json.loads(entry.record.value or b"")
                is_buried = document["status"] == "dead_letter" if "status" in document else False
                buried += is_buried
                if is_buried and document["reason"] not in _REASONS:
                    yield f"buried for {document}"
                if "output" in document and not _fits(document):
                    yield f"an output of another one: {document}"
    letters = sum(len(entries) for tp, entries in world.log.records.items() if tp.topic == TOPICS.dead_letters)
    if letters < buried and world.plan.fits_all:
        yield f"{letters} dead letters and {buried} markers"


def _fits(document: Mapping[str, Any]) -> bool:
    number, output = int(document["event_id"][1:]), document["output"]
    return output == {"n": number} if isinstance(output, dict) else output.startswith(f"answer to {number} is long")


def _previews(world: World) -> Iterator[str]:
    """Look for deltas that are not in the order of their numbers; behind a refused one there may be a gap."""
    for partition in range(PARTITIONS):
        told = defaultdict[tuple[str, int], list[int]](list)
        for entry in world.log.records[TP(TOPICS.deltas, partition)]:
            delta = read_delta(entry.record.value)
            told[delta.event_id, delta.epoch].append(delta.sequence)
        for name, numbers in told.items():
            if numbers != sorted(set(numbers)) or numbers[0] > len(numbers) + 1 + 32:
                yield f"the deltas of {name}: {numbers}"
