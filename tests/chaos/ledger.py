"""The ledger: what was put on the log against what came out of it. Pure; it knows neither Kafka nor processes."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from contracts.errors import TooLarge
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, DUPLICATE_TYPE, RESULT_TYPE

# Shorter than this, a partition without an end is usual: its next event is at the model.
_NOTED_MS = 1000


class Place(NamedTuple):
    """Where a record lies; the timestamp tells a recreated topic's records from the former ones."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True)
class LogEvent:
    """A record of an event topic.

    Attributes:
        incarnation: 0, and one more after each time the topics were recreated.
        digest: of key, value and headers, as its dead letter must have them.
    """

    place: Place
    key: bytes | None
    name: str
    incarnation: int = 0
    digest: str = ""


class Letter(NamedTuple):
    """A dead letter: the digest of the record in it, and why it was buried."""

    digest: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """A terminal record.

    Attributes:
        source: the event it ends.
        writer: the worker that wrote it, where the record says so.
        timestamp_ms: when its producer was given it.
    """

    source: Place
    topic: str
    partition: int
    offset: int
    kind: str
    timestamp_ms: int
    writer: str = ""


@dataclass(frozen=True)
class Reset:
    """An operator's reset, made while no worker ran.

    Attributes:
        starts: (topic, partition) of the events -> where they are read from again.
        result_ends: partition -> end of the result partition at that moment.
    """

    starts: dict[tuple[str, int], int]
    result_ends: dict[int, int]

    def covers(self, place: Place) -> bool:
        """Tell whether an event is delivered again because of it."""
        return place.offset >= self.starts.get((place.topic, place.partition), place.offset + 1)


@dataclass(frozen=True)
class Sample:
    """A look at the group: what was committed, and what the result partitions held just after."""

    incarnation: int
    commits: dict[tuple[str, int], int]
    result_ends: dict[int, int]


@dataclass(frozen=True)
class Freeze:
    """A worker that was stopped, in Unix milliseconds.

    Attributes:
        until_ms: until when; where a broker was out then, since when it was.
        silent_since_ms: since when a broker had not confirmed anything when it was stopped; 0 = they all did.
    """

    writer: str
    at_ms: int
    until_ms: int
    silent_since_ms: int = 0


@dataclass(frozen=True)
class Stall:
    """A time in which a partition had work and ended nothing, in Unix milliseconds.

    Attributes:
        where: the partition, and what ended it, for people.
    """

    from_ms: int
    until_ms: int
    where: str

    @property
    def length_ms(self) -> int:
        """How long it was."""
        return self.until_ms - self.from_ms

    def beyond_ms(self, silences: Sequence[tuple[float, float]]) -> float:
        """Return how long it was without the times (from, until) in which no broker confirmed anything."""
        silent_ms = sum(max(0.0, min(self.until_ms, until) - max(self.from_ms, since)) for since, until in silences)
        return self.length_ms - silent_ms


@dataclass
class Balance:
    """What the ledger says; lists name the offenders.

    Attributes:
        unfit: ends that the event gave no reason for: a dead letter of a healthy one.
        unburied: markers without their letter, and letters that are not their event's record.
        buffered_repeats: duplicates that were in the producer of a worker when it was frozen, as far as can be proved.
        astray: outcomes on another partition than their event: no journal would find them.
        stalls: of a second or longer.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    unburied: list[str] = field(default_factory=list)
    unlogged: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    buffered_repeats: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    astray: list[str] = field(default_factory=list)
    ahead: list[str] = field(default_factory=list)
    expected_calls: Counter[str] = field(default_factory=Counter)
    stalls: list[Stall] = field(default_factory=list)

    def wrong(self) -> tuple[list[str], ...]:
        """Return what must be empty."""
        kept = self.lost, self.unfit, self.unburied, self.unlogged, self.ahead
        return *kept, self.duplicates, self.disorder, self.foreign, self.astray

    def stall_ms(self, silences: Sequence[tuple[float, float]] = ()) -> float:
        """Return the longest stall without silences as in `stalls_after`, 0 when none is worth noting."""
        return max((stall.beyond_ms(silences) for stall in self.stalls), default=0)

    def stalls_after(
        self, acts: Sequence[tuple[int, str]], silences: Sequence[tuple[float, float]] = ()
    ) -> dict[str, float]:
        """Return the longest stall after each kind of fault in milliseconds, 0 where none is worth noting.

        Args:
            acts: when (Unix milliseconds, in order) which kind began; a stall belongs to the last one before its end.
            silences: (from, until) in which no broker confirmed anything; they do not count.
        """
        longest = {kind: 0.0 for _, kind in acts}
        for stall in self.stalls:
            for kind in [kind for at_ms, kind in acts if at_ms <= stall.until_ms][-1:]:
                longest[kind] = max(longest[kind], stall.beyond_ms(silences))
        return longest


class Ledger:
    """Sums up one leg.

    Args:
        events: everything that was on the event topics.
        outcomes: everything on the result topic, per partition in order.
        accepted: names of events that a sender was told are durable.
        resets: in order of time.
        samples: looks at the group.
        freezes: with the window in which a record may have been in the frozen producer.
        window_ms: linger and ack: how long before a freeze a record may have been given to the producer and still be
            in it; before the brokers fell silent, where they had.
        until_ms: stalls count up to then; 0 = all.
        parked: events that may be committed before their end, since they have waited on the retry topic.
        fates: kinds of ends by name, of the events that have to end with something else than a result.
        letters: the dead letters by the place of their event.
        too_large: how many healthy events may be buried as too large, since a broker was told to say so.
    """

    def __init__(
        self,
        events: Sequence[LogEvent],
        outcomes: Sequence[Outcome],
        accepted: Iterable[str],
        resets: Sequence[Reset] = (),
        samples: Sequence[Sample] = (),
        freezes: Sequence[Freeze] = (),
        window_ms: int = 1000,
        until_ms: int = 0,
        parked: frozenset[Place] = frozenset(),
        fates: Mapping[str, Collection[str]] | None = None,
        letters: Mapping[Place, Sequence[Letter]] | None = None,
        too_large: int = 0,
    ) -> None:
        self._events = {event.place: event for event in events}
        self._outcomes = outcomes
        self._accepted = accepted
        self._resets = resets
        self._samples = samples
        self._freezes = freezes
        self._window_ms = window_ms
        self._until_ms = until_ms
        self._parked = parked
        self._fates = fates or {}
        self._letters = letters or {}
        self._too_large = too_large
        self._ended: dict[tuple[Place, int], list[Outcome]] = defaultdict(list)
        self.balance = Balance()

    def close(self) -> Balance:
        """Return the balance."""
        self._sort()
        self._find_lost()
        self._find_unfit()
        self._find_unburied()
        self._find_duplicates()
        self._find_disorder()
        self._find_early_commits()
        self._find_stalls()
        return self.balance

    def _sort(self) -> None:
        for outcome in self._outcomes:
            self.balance.kinds[outcome.kind] += 1
            if outcome.source not in self._events:
                self.balance.foreign.append(_line(outcome))
                continue
            if outcome.partition != outcome.source.partition:
                self.balance.astray.append(_line(outcome))
            self._ended[outcome.source, self._epoch(outcome)].append(outcome)
        for (place, _), found in self._ended.items():
            if all(outcome.kind == DUPLICATE_TYPE for outcome in found):
                continue
            self.balance.expected_calls[self._events[place].name] += 1

    def _epoch(self, outcome: Outcome) -> int:
        """Return how many wanted replays of its event an outcome comes after."""
        return sum(
            reset.covers(outcome.source) and outcome.offset >= reset.result_ends.get(outcome.partition, 0)
            for reset in self._resets
        )

    def _find_lost(self) -> None:
        names = {event.name for event in self._events.values()}
        self.balance.unlogged = sorted(set(self._accepted) - names)
        answered: dict[str, set[Place]] = defaultdict(set)
        for (place, _), found in self._ended.items():
            if any(outcome.kind != DUPLICATE_TYPE for outcome in found):
                answered[self._events[place].name].add(place)
        for place, event in self._events.items():
            found = self._ended.get((place, sum(reset.covers(place) for reset in self._resets)), [])
            # A marker says that another record of this name has an end: without one it is the only trace of a loss.
            is_answered = any(outcome.kind != DUPLICATE_TYPE for outcome in found)
            if not is_answered and not (found and answered[event.name] - {place}):
                self.balance.lost.append(f"{event.name} at {_name(place)} key {event.key!r}")

    def _find_unfit(self) -> None:
        refused = {
            place for place, found in self._letters.items() if any(one.reason == TooLarge.reason for one in found)
        }
        excused = refused if len(refused) <= self._too_large else set()
        for outcome in self._outcomes:
            event = self._events.get(outcome.source)
            if event is None or outcome.kind == DUPLICATE_TYPE:
                continue
            wanted = self._fates.get(event.name, (RESULT_TYPE,))
            is_excused = outcome.kind == DEAD_LETTER_MARKER_TYPE and outcome.source in excused
            if outcome.kind not in wanted and not is_excused:
                self.balance.unfit.append(f"{event.name}: {_line(outcome)}, not {' or '.join(map(_kind, wanted))}")

        for place in self._letters.keys() & self._events.keys() - excused:
            name = self._events[place].name
            if DEAD_LETTER_MARKER_TYPE not in self._fates.get(name, ()):
                self.balance.unfit.append(f"{name} at {_name(place)}: a dead letter, {self._letters[place][0].reason}")

    def _find_unburied(self) -> None:
        """Compare markers with letters; a letter whose worker was killed before its marker is one too many."""
        markers = Counter(one.source for one in self._outcomes if one.kind == DEAD_LETTER_MARKER_TYPE)
        for place in {**markers, **self._letters}:
            event, letters = self._events.get(place), self._letters.get(place, ())
            whole = sum(event is not None and letter.digest == event.digest for letter in letters)
            if event is not None and (whole < markers[place] or whole < len(letters)):
                text = (
                    f"{event.name} at {_name(place)}: {markers[place]} markers, {len(letters)} letters, {whole} equal"
                )
                self.balance.unburied.append(text)
            elif event is None and letters:
                self.balance.foreign.append(f"a dead letter of {_name(place)}")

    def _find_duplicates(self) -> None:
        for (place, _), found in self._ended.items():
            if len(found) > 1:
                text = f"{self._events[place].name} at {_name(place)}: {'; '.join(map(_line, found))}"
                is_buffered = all(any(self._was_buffered(o) for o in pair) for pair in pairwise(found))
                (self.balance.buffered_repeats if is_buffered else self.balance.duplicates).append(text)

    def _was_buffered(self, outcome: Outcome) -> bool:
        """Tell whether it was in a producer while its process was frozen: given to it before, on the log after."""
        return any(not self._was_written(outcome, freeze.until_ms) for freeze in self._freezes_just_after(outcome))

    def _freezes_just_after(self, outcome: Outcome) -> list[Freeze]:
        return [
            freeze
            for freeze in self._freezes
            if outcome.writer == freeze.writer
            and (freeze.silent_since_ms or freeze.at_ms) - self._window_ms <= outcome.timestamp_ms <= freeze.at_ms
        ]

    def _was_written(self, outcome: Outcome, until_ms: int) -> bool:
        """Tell whether it was on the log at a time: behind it lies a record that was confirmed by then."""
        return any(
            other.partition == outcome.partition
            and other.offset > outcome.offset
            and other.timestamp_ms <= until_ms - self._window_ms
            # It may itself have come out of a producer that was frozen.
            and other.writer
            and not self._freezes_just_after(other)
            for other in self._outcomes
        )

    def _find_disorder(self) -> None:
        newest: dict[tuple[int, str, int, bytes | None], tuple[int, int]] = {}
        seen: set[tuple[Place, int]] = set()
        for outcome in self._outcomes:
            event = self._events.get(outcome.source)
            epoch = self._epoch(outcome)
            if event is None or event.key is None or (outcome.source, epoch) in seen:
                continue
            if outcome.kind == DUPLICATE_TYPE:
                # It waits for nobody: the event that it repeats may still be at work.
                continue
            seen.add((outcome.source, epoch))
            segment = sum(outcome.offset >= reset.result_ends.get(outcome.partition, 0) for reset in self._resets)
            chain = (segment, outcome.source.topic, outcome.partition, event.key)
            at = (event.incarnation, outcome.source.offset)
            if at < newest.get(chain, (-1, -1)):
                self.balance.disorder.append(f"{event.name} key {event.key!r}: {_line(outcome)}, after {newest[chain]}")
            newest[chain] = max(at, newest.get(chain, (-1, -1)))

    def _find_early_commits(self) -> None:
        first: dict[Place, int] = {}
        for (place, _), found in self._ended.items():
            first[place] = min([first.get(place, found[0].offset), *(outcome.offset for outcome in found)])
        for sample in self._samples:
            for place, event in self._events.items():
                commit = sample.commits.get((place.topic, place.partition), 0)
                is_under = event.incarnation == sample.incarnation and place.offset < commit
                if is_under and place not in self._parked:
                    ended_at = first.get(place)
                    if ended_at is None or ended_at >= sample.result_ends[place.partition]:
                        self.balance.ahead.append(f"{event.name} at {_name(place)} under commit {commit}")

    def _find_stalls(self) -> None:
        """Find the times in which a partition of a lane had work and ended nothing; lanes share result partitions."""
        by_partition: dict[tuple[str, int], list[Outcome]] = defaultdict(list)
        for outcome in self._outcomes:
            is_in_time = not self._until_ms or outcome.timestamp_ms <= self._until_ms
            if is_in_time and outcome.source in self._events:
                by_partition[outcome.source.topic, outcome.source.partition].append(outcome)
        for (topic, partition), outcomes in by_partition.items():
            in_time = sorted(outcomes, key=lambda outcome: outcome.timestamp_ms)
            # Before the first one it has waited since its oldest event.
            befores_ms = [0, *(outcome.timestamp_ms for outcome in in_time[:-1])]
            waiting_since = in_time[-1].timestamp_ms
            # From the end: the oldest event that still waits at each moment.
            for before_ms, after in zip(reversed(befores_ms), reversed(in_time), strict=True):
                waiting_since = min(waiting_since, after.source.timestamp_ms)
                since_ms, until_ms = max(before_ms, waiting_since), after.timestamp_ms
                if until_ms - since_ms >= _NOTED_MS:
                    self.balance.stalls.append(Stall(since_ms, until_ms, f"{topic}/{partition} before {_line(after)}"))


def _line(outcome: Outcome) -> str:
    return (
        f"{_kind(outcome.kind)} of {_name(outcome.source)} in {outcome.topic}/{outcome.partition}"
        f"/{outcome.offset} at {outcome.timestamp_ms} by {outcome.writer or '?'}"
    )


def _kind(full: str) -> str:
    return full.split(".")[-2]


def _name(place: Place) -> str:
    return f"{place.topic}/{place.partition}/{place.offset}"
