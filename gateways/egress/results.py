"""Answers "what became of my event?" from memory, and from the topics for events that are no longer there.

Reads: result topics, events.*. The topics are the truth; this view is rebuilt from them at every start.
"""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from contracts.codec import Position
from contracts.envelope import result_id
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.repetition import digest_of
from contracts.settings import KafkaSettings, ResultsViewSettings
from gateways.egress.archive import Archive
from gateways.egress.fetch import Fetcher
from gateways.egress.index import IndexUnreadable
from gateways.egress.outcomes import Accepted, Outcome, OutcomeCache, Place
from gateways.egress.reading import LogIds, Present, in_thread, other_logs, reader_config
from gateways.egress.scan import Scanned, Wanted, scan
from gateways.egress.tail import Tail

# Each scan is one consumer and up to its fetch buffers of memory.
MAX_SCANS = 4
# Look-ups of what an event was: who may not read them must not keep others from their outcomes.
MAX_FETCHES = 4
SCAN_LIMIT_S = 5.0
_FETCH_LIMIT_S = 3.0
_MISS_VALID_S = 2.0
# Ids that nobody knows lead to a question to the brokers; a flood of them leads to so many, whatever they cost.
_ASK_EVERY_S = 0.1
# Readers are usually some 10 ms behind; longer, and the caller is better told to come again.
_READ_WITHIN_S = 2.0
_LOOK_S = 0.02
_MAX_MISSES = 10_000


class _Miss(NamedTuple):
    """A scan that found nothing for good: not repeated before an instant, and then continued where it ended.

    Attributes:
        found: a dead letter, behind which a later outcome may lie.
    """

    valid_until_s: float
    next_offsets: Mapping[str, int]
    logs: int
    found: Outcome | None = None


class ResultsView:
    """Finds outcomes; its methods belong to one event loop.

    Args:
        kafka: the brokers.
        result_topics: every topic with terminal records.
        event_topics: where events of API callers lie; empty when there are none.
        cache_bytes: for recent outcomes.
        retention_s: older events are unknown.
        on_outcome: hears of every outcome, on another thread, once it can be found here.
        view: the index on disk; without a path there is none.
        clock: Unix seconds.

    Raises:
        ConfigError: the Kafka settings, or the file of the index, cannot be used.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        result_topics: Sequence[str],
        event_topics: Sequence[str],
        *,
        cache_bytes: int,
        retention_s: float,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        view: ResultsViewSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = reader_config(kafka, "penstock-gateway-results")
        self._result_topics = tuple(result_topics)
        self._retention_s = retention_s
        self._clock = clock
        self._cache = OutcomeCache(cache_bytes, clock)
        self._topics = (*result_topics, *event_topics)
        self._log_ids = LogIds(self._config, self._topics)
        # The embedded broker says nothing of ids; an index may know those of a cluster from before.
        self._has_ids = not kafka.embedded
        self._turn = asyncio.Lock()
        self._asked: asyncio.Future[tuple[Present, bool]] | None = None
        self._asked_s = float("-inf")
        self._tail = Tail(self._config, result_topics, event_topics, self._cache, on_outcome)
        self._archive = (
            Archive(view, self._config, result_topics, event_topics, retention_s) if view and view.path else None
        )
        self._fetcher = Fetcher(self._config)
        self._executor = ThreadPoolExecutor(MAX_SCANS + MAX_FETCHES, thread_name_prefix="results-scan")
        self._scans = 0
        self._fetches = 0
        self._is_closed = threading.Event()
        self._misses: OrderedDict[Wanted, _Miss] = OrderedDict()

    def start(self) -> None:
        """Begin to follow the topics; returns at once also while the brokers are away."""
        self._tail.start()
        if self._archive is not None:
            self._archive.start()

    def close(self) -> None:
        """Stop following; scans under way end within a poll."""
        self._is_closed.set()
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._tail.close()
        if self._archive is not None:
            self._archive.close()
        self._fetcher.close()

    @property
    def is_alive(self) -> bool:
        """Tell whether the view still follows the topics."""
        return self._tail.is_alive

    @property
    def is_caught_up(self) -> bool:
        """Tell whether the view has read up to the present once."""
        return self._tail.is_caught_up

    def note_accepted(self, owner: str, event_id: str, accepted: Accepted) -> None:
        """Remember an event of an API caller, so that it can be asked for at once."""
        self._cache.note_accepted(owner, event_id, accepted)

    async def digest(self, owner: str, event_id: str, accepted: Accepted) -> bytes:
        """Return the digest of an accepted event's body, read from its record where it is not known; empty = gone.

        Raises:
            LogUnavailable: Kafka cannot be read.
            Busy: too many look-ups at a time.
        """
        if accepted.digest:
            return accepted.digest
        if self._fetches >= MAX_FETCHES:
            message = "too many look-ups of events"
            raise Busy(message)
        topic, partition, offset, timestamp_ms = accepted.position
        self._fetches += 1
        try:
            place = Place(topic, partition, offset)
            found = await in_thread(self._executor, self._fetcher.fetch, place, _FETCH_LIMIT_S)
        finally:
            self._fetches -= 1
        if found is None or found.timestamp()[1] != timestamp_ms:
            return b""
        digest = digest_of(owner, accepted.source, found.value() or b"")
        self._cache.note_accepted(owner, event_id, accepted._replace(digest=digest))
        return digest

    async def outcome_of(self, source: str, event_id: str, position: Position, owner: str = "") -> Outcome | None:
        """Return the outcome of an event that lies at a position; None while there is none.

        Args:
            source: of the event.
            event_id: of the event.
            position: of the event's record.
            owner: API key id; empty for webhooks.

        Raises:
            UnknownResult: the event is older than results are kept.
            LogUnavailable: not in memory, and Kafka is away.
            Busy: too many look-ups of old results at a time, or this one took too long; asking again goes on with it.
        """
        repetition = self._cache.repetition(position)
        if repetition is not None:
            # The first one is never a repetition itself.
            event_id, position = repetition.first_event_id, repetition.first
        found = self._cache.get(source, event_id, owner, position)
        if found is not None:
            return found
        if position.timestamp_ms < (self._clock() - self._retention_s) * 1000:
            message = "no such result"
            raise UnknownResult(message)
        since_ms = position.timestamp_ms
        dropped_until_ms = self._cache.dropped_until(source, event_id, owner)
        if since_ms > dropped_until_ms and self._tail.covers(position.partition, since_ms):
            return None
        wanted = Wanted(result_id(source, event_id), position, owner)
        if self._archive is not None:
            found, is_known = await self._archived(self._archive, wanted)
            if found is not None or is_known:
                return found
        found = await self._look_up(wanted)
        # A look-up may have shown that the event repeats another one.
        is_moved = found is None and self._cache.repetition(position) is not None
        return await self.outcome_of(source, event_id, position, owner) if is_moved else found

    async def _archived(self, archive: Archive, wanted: Wanted) -> tuple[Outcome | None, bool]:
        """Return what the index has, and whether it has everything."""
        try:
            found = await archive.outcome(wanted.result_id)
        except IndexUnreadable:
            # With the ticket it is found without an index.
            return None, False
        if found is None:
            return None, archive.knows_since(wanted.since_ms) and self._sees_repetitions(wanted)
        self._cache.add(found)
        # The index knows one of an id: the wanted one may lie before another owner's, or another event's.
        return (found, True) if wanted.is_met_by(found) else (None, False)

    def _sees_repetitions(self, wanted: Wanted) -> bool:
        """Tell whether it would be known here if the event repeated one under another id: no index has that."""
        # What repeats an API caller's event has its id, under which the index has the outcome.
        return bool(wanted.owner) or (
            wanted.since_ms > self._cache.repetitions_dropped_until_ms
            and self._tail.covers(wanted.partition, wanted.since_ms)
        )

    async def accepted(self, owner: str, event_id: str, source: str | None, *, within_memory: bool = False) -> Accepted:
        """Return the newest event with this id of an API caller: its source, and where it lies.

        Args:
            owner: the caller.
            event_id: of the event.
            source: of the event; any when None.
            within_memory: what the last minutes do not know may be called unknown while the index is still being made.

        Raises:
            UnknownResult: the caller has no such event, as far back as this view goes.
            LogUnavailable: Kafka is away, so that nothing can be said.
            Busy: this view has not read up to the present yet.
        """
        # Before looking: what is read in between is not known to have been looked through.
        is_complete = self._tail.is_caught_up if within_memory else self._is_complete
        try:
            accepted = await self._known(owner, event_id, source)
        except IndexUnreadable:
            if not within_memory:
                raise
            accepted = None
        if accepted is None and not self._tail.is_reachable:
            message = "Kafka does not answer"
            raise LogUnavailable(message, retry_after_s=2.0)
        if accepted is None and is_complete and not within_memory:
            accepted, is_complete = await self._known_by_now(owner, event_id, source)
        if accepted is not None:
            return accepted
        if not is_complete:
            message = "results are still being read"
            raise Busy(message)
        message = "no such result"
        raise UnknownResult(message)

    async def _known_by_now(self, owner: str, event_id: str, source: str | None) -> tuple[Accepted | None, bool]:
        """Look again when what is on the logs at this moment has been read; tell whether it has."""
        present, is_read = await self._present()
        # The ids first: they are noted once what was said of the former logs is taken back.
        logs = self._logs()
        is_complete = is_read and self._is_complete
        is_complete = is_complete and not any(other_logs(ids, present.ids) for ids in logs)
        return await self._known(owner, event_id, source), is_complete

    async def _known(self, owner: str, event_id: str, source: str | None) -> Accepted | None:
        accepted = self._cache.accepted(owner, event_id, source)
        if accepted is None and self._archive is not None:
            accepted = await self._archive.accepted(owner, event_id, source)
        return accepted

    @property
    def _is_complete(self) -> bool:
        return self._tail.is_caught_up and (self._archive is None or self._archive.is_caught_up)

    def _logs(self) -> list[Mapping[str, str]]:
        return [self._tail.log_ids, *([self._archive.log_ids] if self._archive else [])]

    async def _present(self) -> tuple[Present, bool]:
        """Return what the logs are and where they ended, and whether that is read: readers notice both a little late.

        One question at a time goes out, for all who came before it, and only so many a second.

        Raises:
            LogUnavailable: no answer.
        """
        came_s = time.monotonic()
        async with self._turn:
            if self._asked is None or self._asked_s <= came_s:
                await asyncio.sleep(max(0.0, self._asked_s + _ASK_EVERY_S - time.monotonic()))
                self._asked_s = time.monotonic()
                self._asked = asyncio.ensure_future(self._ask())
            answer = self._asked
            await asyncio.wait([answer])
        return answer.result()

    async def _ask(self) -> tuple[Present, bool]:
        """Ask, and wait a moment for the reader that has everything: the index, or the tail where there is none."""
        present = await in_thread(None, self._log_ids.present, self._topics, has_ids=self._has_ids)
        give_up_s = time.monotonic() + _READ_WITHIN_S
        while not (is_read := self._is_read_to(present)) and time.monotonic() < give_up_s:
            if self._is_closed.is_set():
                break
            if self._archive is not None:
                self._archive.hurry()
            await asyncio.sleep(_LOOK_S)
        return present, is_read

    @property
    def _reader(self) -> Archive | Tail:
        return self._tail if self._archive is None else self._archive

    def _is_read_to(self, present: Present) -> bool:
        read_to = self._reader.read_to
        return self._is_complete and all(read_to.get(place, -1) >= end for place, end in present.ends.items())

    async def _look_up(self, wanted: Wanted) -> Outcome | None:
        miss, logs = self._misses.get(wanted), self._tail.logs
        if miss is not None and miss.logs != logs:
            # A topic was made anew, where the outcome may lie before the place at which the last look-up ended.
            miss = None
        if miss is not None and time.monotonic() < miss.valid_until_s:
            return None
        if self._scans >= MAX_SCANS and miss is not None and miss.found is not None:
            return miss.found
        async with self._scanning():
            scanned = await self._scan(wanted, miss.next_offsets if miss else {})
        found = _newest(scanned.outcome, miss.found if miss else None)
        if found is not None and scanned.is_complete:
            self._misses.pop(wanted, None)
            self._cache.add(found)
            return found
        if scanned.repetition is not None:
            self._cache.note_repetition(scanned.repetition)
            return None
        self._remember_miss(wanted, scanned, logs, found)
        if found is not None:
            return found
        if not scanned.is_complete:
            message = "the look-up of an old result takes longer"
            raise Busy(message)
        return None

    @contextlib.asynccontextmanager
    async def _scanning(self) -> AsyncIterator[None]:
        if self._scans >= MAX_SCANS:
            message = "too many look-ups of old results"
            raise Busy(message)
        self._scans += 1
        try:
            yield
        finally:
            self._scans -= 1

    async def _scan(self, wanted: Wanted, from_offsets: Mapping[str, int]) -> Scanned:
        limits = SCAN_LIMIT_S, self._is_closed.is_set
        return await in_thread(self._executor, scan, self._config, self._result_topics, wanted, from_offsets, *limits)

    def _remember_miss(self, wanted: Wanted, scanned: Scanned, logs: int, found: Outcome | None) -> None:
        # An unfinished scan is to be continued at once.
        valid_s = _MISS_VALID_S if scanned.is_complete else 0.0
        self._misses.pop(wanted, None)
        self._misses[wanted] = _Miss(time.monotonic() + valid_s, scanned.next_offsets, logs, found)
        while len(self._misses) > _MAX_MISSES:
            self._misses.popitem(last=False)


def _newest(one: Outcome | None, earlier: Outcome | None) -> Outcome | None:
    return earlier if one is None or (earlier is not None and earlier.redrives >= one.redrives) else one
