"""Reads terminal records, and keeps the recent ones within a bound of bytes."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from contracts.codec import Position, decode_json, redrive_of, source_position
from contracts.envelope import EVENT_ID, EVENT_SOURCE, OWNER, result_id
from contracts.errors import Undecodable
from contracts.payloads import (
    DUPLICATE_TYPE,
    EXPIRED_TYPE,
    RESULT_TYPE,
    TERMINAL_TYPES,
    DuplicateMarker,
    OutcomeMarker,
    OutcomeStatus,
)
from contracts.repetition import identity_of
from contracts.topics import is_event_topic

# Measured on CPython 3.11 with tracemalloc: dictionary entry, tuples and strings of one outcome without its value.
_ENTRY_BYTES = 810
# An accepted event, measured likewise; they may take as much as the outcomes, and this many at most.
_ACCEPTED_BYTES = 580
_MAX_ACCEPTED = 50_000
_MAX_SOURCES_OF_AN_ID = 8
# Of events under one id, as a sender may have one done again, the outcomes that are kept.
_MAX_OUTCOMES_OF_AN_ID = 8
# Those of gateways and workers differ less than this.
_CLOCKS_MS = 60_000
_MAX_REPETITIONS = 20_000

RecordHeaders = Iterable[tuple[str, bytes | None]]


def event_name(result_id: str, owner: str) -> str:
    """Return by what an event is known here: two keys that may claim one source may also use one id.

    Args:
        result_id: follows from source and id.
        owner: API key id; empty for webhooks.
    """
    return f"{result_id} {owner}" if owner else result_id


class Outcome(NamedTuple):
    """The terminal record of one event.

    Attributes:
        redrives: how often the event had been put back from the dead letters.
        answers: where the record lies that it is the outcome of; None when it does not say so.
    """

    result_id: str
    event_id: str
    source: str
    owner: str
    type: str
    value: bytes
    timestamp_ms: int
    redrives: int = 0
    answers: Position | None = None

    @property
    def name(self) -> str:
        """Return by what its event is known."""
        return event_name(self.result_id, self.owner)

    @property
    def status(self) -> OutcomeStatus:
        """Return how the event ended."""
        if self.type == RESULT_TYPE:
            return "succeeded"
        return "expired" if self.type == EXPIRED_TYPE else "dead_letter"

    def is_of_another(self, position: Position) -> bool:
        """Tell whether it is of another event under the same id than the one that lies at a position.

        What it answers may be the same event elsewhere: on the retry topic, or put back from the dead letters behind
        its own record, on the same partition. Where offsets and times contradict each other, the topic was made anew,
        and neither tells.
        """
        at = self.answers
        if at is None:
            return False
        if at[:2] != position[:2]:
            if is_event_topic(at.topic) and is_event_topic(position.topic):
                # Under another partition key, or in another lane.
                return True
            return self.timestamp_ms < position.timestamp_ms - _CLOCKS_MS
        if at.offset < position.offset:
            return at.timestamp_ms <= position.timestamp_ms
        return self.redrives == 0 and at.offset > position.offset and at.timestamp_ms >= position.timestamp_ms

    def body(self) -> dict[str, Any]:
        """Return what a caller gets to read.

        Raises:
            Undecodable: the record's value is not what its type says.
        """
        head = {"id": self.event_id, "source": self.source}
        if self.type == RESULT_TYPE:
            return head | {"status": "succeeded", "result": msgspec.Raw(self.value)}
        marker = decode_json(self.value, OutcomeMarker)
        return head | {
            "status": self.status,
            "reason": marker.reason,
            "message": marker.message,
            "attempts": marker.attempts,
            "completed_at": marker.completed_at,
        }


class Accepted(NamedTuple):
    """An event of an API caller that is on the log.

    Attributes:
        digest: of its body (contracts/repetition.py); empty where that is not known.
    """

    source: str
    position: Position
    digest: bytes = b""


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


class Written(NamedTuple):
    """An outcome as the index keeps it."""

    result_id: str
    place: Place
    timestamp_ms: int


class Noted(NamedTuple):
    """An accepted event of an API caller as the index keeps it."""

    owner: str
    event_id: str
    accepted: Accepted


def read_outcome(headers: RecordHeaders, value: bytes | None, timestamp_ms: int) -> Outcome | None:
    """Return the outcome a record carries; None when it is not a terminal record."""
    headers = tuple(headers)
    found = {name: raw for name, raw in headers if name.startswith("ce_") and raw is not None}
    try:
        outcome_type = found["ce_type"].decode()
        if outcome_type not in TERMINAL_TYPES or value is None:
            return None
        redrive, answered = redrive_of(headers), source_position(headers)
        return Outcome(
            found["ce_id"].decode(),
            found[f"ce_{EVENT_ID}"].decode(),
            found[f"ce_{EVENT_SOURCE}"].decode(),
            found.get(f"ce_{OWNER}", b"").decode(),
            outcome_type,
            value,
            timestamp_ms,
            redrive.count if redrive is not None else 0,
            answered[1] if answered is not None else None,
        )
    except (KeyError, UnicodeDecodeError):
        return None


def read_accepted(headers: RecordHeaders, position: Position) -> tuple[str, str, Accepted] | None:
    """Return (owner, event id, what can be asked for) of an event record; None when it is no API caller's."""
    headers = tuple(headers)
    found = dict(headers)
    owner = found.get(f"ce_{OWNER}")
    if not owner:
        return None
    event_id, source = ((found.get(name) or b"").decode(errors="replace") for name in ("ce_id", "ce_source"))
    identity = identity_of(headers, event_id)
    digest = identity.digest if identity is not None else b""
    return owner.decode(errors="replace"), event_id, Accepted(source, position, digest)


class Repetition(NamedTuple):
    """A record that repeats another one, whose outcome is its own."""

    result_id: str
    position: Position
    first_event_id: str
    first: Position


def read_repetition(headers: RecordHeaders, value: bytes | None) -> Repetition | None:
    """Return what the marker of a duplicate says; None for every other record."""
    headers = tuple(headers)
    if value is None or dict(headers).get("ce_type") != DUPLICATE_TYPE.encode():
        return None
    answered = source_position(headers)
    try:
        marker = decode_json(value, DuplicateMarker)
    except Undecodable:
        return None
    if answered is None:
        return None
    first = Position(marker.topic, marker.partition, marker.offset, marker.timestamp_ms)
    return Repetition(result_id(marker.source, marker.event_id), answered[1], marker.first_event_id, first)


class OutcomeCache:
    """Recent outcomes by name, accepted events of API callers by (owner, id), and which record repeats which.

    Safe for use by several threads.

    Args:
        limit_bytes: for the outcomes, and again for the accepted events; the least recently used are dropped first.
        clock: Unix seconds.

    Attributes:
        dropped_until_ms: events of this time or before may have had an outcome, or been a repetition, that was dropped.
        repetitions_dropped_until_ms: of this time or before may have been a repetition that was dropped.
    """

    def __init__(self, limit_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._max_accepted = min(_MAX_ACCEPTED, limit_bytes // _ACCEPTED_BYTES)
        self._held_bytes = 0
        self._lock = threading.Lock()
        self._outcomes: OrderedDict[str, tuple[Outcome, ...]] = OrderedDict()
        self._accepted: OrderedDict[tuple[str, str], tuple[Accepted, ...]] = OrderedDict()
        self._repetitions: OrderedDict[Position, Repetition] = OrderedDict()
        # By name, of those in `_outcomes` that have had more than are kept of an id.
        self._dropped_of: dict[str, int] = {}
        self.dropped_until_ms = 0
        self.repetitions_dropped_until_ms = 0

    def note_repetition(self, found: Repetition) -> None:
        """Remember that a record repeats another one."""
        with self._lock:
            self._repetitions[found.position] = found
            while len(self._repetitions) > _MAX_REPETITIONS:
                dropped, _ = self._repetitions.popitem(last=False)
                until_ms = min(dropped.timestamp_ms, self._latest_ms())
                self.repetitions_dropped_until_ms = max(self.repetitions_dropped_until_ms, until_ms)
                self.dropped_until_ms = max(self.dropped_until_ms, until_ms)

    def repetition(self, position: Position) -> Repetition | None:
        """Return what a record repeats; None as far as it is known to be the first."""
        with self._lock:
            return self._repetitions.get(position)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; the first one of an event stands until the event was put back from the dead letters.

        An event that was sent again under its id, wanted or with another body, has one of its own.
        """
        with self._lock:
            known = self._outcomes.get(outcome.name, ())
            former = [one for one in known if one.answers == outcome.answers]
            if any(outcome.redrives <= one.redrives for one in former):
                return
            kept = (*(one for one in known if one not in former), outcome)
            for one in kept[:-_MAX_OUTCOMES_OF_AN_ID]:
                # Noted of this id alone: a caller that uses one for everything has nobody else's tickets looked up.
                self._held_bytes -= _size(one)
                self._dropped_of[one.name] = max(self._dropped_of.get(one.name, 0), self._until_ms(one))
            self._outcomes.pop(outcome.name, None)
            self._outcomes[outcome.name] = kept[-_MAX_OUTCOMES_OF_AN_ID:]
            self._held_bytes += _size(outcome) - sum(map(_size, former))
            while self._held_bytes > self._limit_bytes:
                name, dropped = self._outcomes.popitem(last=False)
                self._held_bytes -= sum(map(_size, dropped))
                marks = (self._dropped_of.pop(name, 0), *map(self._until_ms, dropped))
                self.dropped_until_ms = max(self.dropped_until_ms, *marks)

    def _until_ms(self, dropped: Outcome) -> int:
        """Return up to when the event of an outcome may have been accepted."""
        # Also by the event's own time, which its ticket has: the clock of who wrote the outcome may be behind. A stamp
        # far ahead would have every pending result looked up until the next start.
        written_ms, at_ms = dropped.timestamp_ms, 0 if dropped.answers is None else dropped.answers.timestamp_ms
        return min(max(written_ms, min(at_ms, written_ms + _CLOCKS_MS)), self._latest_ms())

    def _latest_ms(self) -> int:
        return int(self._clock() * 1000) + _CLOCKS_MS

    def dropped_until(self, source: str, event_id: str, owner: str = "") -> int:
        """Return since when, in ms, every outcome of events under this id is here; ask after `get`."""
        name = event_name(result_id(source, event_id), owner)
        with self._lock:
            return max(self.dropped_until_ms, self._dropped_of.get(name, 0))

    def get(self, source: str, event_id: str, owner: str = "", position: Position | None = None) -> Outcome | None:
        """Return the outcome of an event, when it is here; of the one that lies at a position, when that is given."""
        name = event_name(result_id(source, event_id), owner)
        with self._lock:
            found = self._outcomes.get(name)
            if found is None:
                return None
            self._outcomes.move_to_end(name)
        if position is not None:
            found = tuple(one for one in found if not one.is_of_another(position))
        # Of what was put back the newest, else its own, else what came first.
        return max(found, key=lambda one: (one.redrives, one.answers == position), default=None)

    def note_accepted(self, owner: str, event_id: str, accepted: Accepted) -> None:
        """Remember that an API caller's event is on the log; of two of a source and id the later one."""
        with self._lock:
            earlier = self._accepted.pop((owner, event_id), ())
            others = tuple(other for other in earlier if other.source != accepted.source)
            same = (accepted, *(one for one in earlier if one.source == accepted.source))
            # What is read of the log, and of outcomes, may be of the earlier one. And an outcome may answer what was
            # made of the event, on the retry topic: that is where it went on, and nothing new.
            newest = max(same, key=lambda one: (is_event_topic(one.position.topic), one.position.timestamp_ms))
            # An outcome says where its event lies, and not what it was.
            digests = [one.digest for one in same if one.digest and one.position == newest.position]
            newest = newest._replace(digest=digests[0] if digests else b"")
            self._accepted[owner, event_id] = (*others, newest)[-_MAX_SOURCES_OF_AN_ID:]
            while len(self._accepted) > self._max_accepted:
                self._accepted.popitem(last=False)

    def accepted(self, owner: str, event_id: str, source: str | None = None) -> Accepted | None:
        """Return the newest event of a caller with this id, of this source when given."""
        with self._lock:
            candidates = self._accepted.get((owner, event_id), ())
        return next((one for one in reversed(candidates) if source in {None, one.source}), None)


def _size(outcome: Outcome) -> int:
    return _ENTRY_BYTES + len(outcome.value) + 2 * (len(outcome.event_id) + len(outcome.source))
