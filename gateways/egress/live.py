"""Shows answers while they are made: one tail of the deltas for all watchers, and look-ups for those that come later.

Reads: deltas; outcomes through a callable. The log is the truth: another instance, or this one after a restart, tells
the same. See docs/streaming.md.
"""

import asyncio
import contextlib
import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from contracts.codec import Position
from contracts.errors import Busy, LogUnavailable
from contracts.logs import logger
from contracts.metrics import CATCH_UPS, STREAM_RESUMES, WATCHERS, WATCHERS_LIMIT
from contracts.settings.streams import StreamSettings
from gateways.egress.catch_up import Place, catch_up, take
from gateways.egress.deltas_tail import Arrival, DeltasTail
from gateways.egress.feed import Feed, Seen
from gateways.egress.frames import Frame, last, news
from gateways.egress.outcomes import Outcome
from gateways.egress.reading import in_thread
from gateways.egress.tickets import Ticket

# Each look-up is one consumer and up to its fetch buffers of memory.
MAX_CATCH_UPS = 4
CATCH_UP_LIMIT_S = 5.0
_RETRY_S = 1.0
# As often a look-up goes on that did not reach the end in time.
_CATCH_UP_ROUNDS = 6
# Whoever comes back in this time finds everything still here.
LINGER_S = 30.0
_MAX_IDLE = 1000
# An outcome is announced; this is for announcements that got lost while the brokers were away.
_LOOK_AGAIN_S = 5.0
# The last deltas and the result come on two ways.
_LAST_DELTAS_S = 1.0

# What is on its way to one client at a time: a slow one must not hold more than this, several times over.
_BATCH_CHARS = 16_384
_BATCH_FRAMES = 256

_log = logger("gateway")
Outcomes = Callable[[str, str, Position, str], Awaitable[Outcome | None]]


class Entry:
    """A feed, and what this file notes about it.

    Args:
        max_chars: of the feed.
        is_complete: it was made before its event, so that there is nothing to look up.

    Attributes:
        held: arrivals behind the look-up that is to be made; None = the feed takes them at once.
        held_bytes: of these.
        is_cut: there was no room for them, so that the feed will tell nothing more.
        outcomes: how often an outcome was announced.
        watchers: how many hold a place.
        idle_since_s: loop time at which the last one left.
    """

    def __init__(self, max_chars: int, *, is_complete: bool) -> None:
        self.feed = Feed(max_chars)
        self.held: list[Arrival] | None = None if is_complete else []
        self.held_bytes = 0
        self.is_cut = False
        self.catching_up: asyncio.Future[None] | None = None
        self.outcomes = 0
        self.watchers = 0
        self.idle_since_s = 0.0


class Live:
    """Watched events; its methods belong to one event loop.

    Args:
        config: of consumers.
        topic: of the deltas.
        settings: limits.
        outcomes: finds the outcome of (source, id, position, owner).
    """

    def __init__(self, config: dict[str, Any], topic: str, settings: StreamSettings, outcomes: Outcomes) -> None:
        self._config = config
        self._topic = topic
        self._settings = settings
        self._outcomes = outcomes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._tail = DeltasTail(config, topic, self._entries, self._hand_over, self._hand_over_gap)
        self._executor = ThreadPoolExecutor(MAX_CATCH_UPS, thread_name_prefix="deltas-catch-up")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watchers = 0
        # Of feeds the text, of what waits for a look-up the records.
        self._size_chars = 0
        self._begun = 0
        self._ended = asyncio.Event()
        WATCHERS_LIMIT.set(settings.max_watchers)

    def start(self) -> None:
        """Begin to follow the topic, in the running loop; returns at once also while the brokers are away."""
        self._loop = asyncio.get_running_loop()
        self._tail.start()

    def close(self) -> None:
        """Stop following; look-ups under way end within a poll; on any thread."""
        self._call_soon(self._ended.set)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._tail.close()

    @property
    def is_ending(self) -> bool:
        """Tell whether every watcher is to go."""
        return self._ended.is_set()

    async def ending(self, within_s: float) -> None:
        """Return when every watcher is to go, or after a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ended.wait()

    @property
    def is_following(self) -> bool:
        """Tell whether new deltas are handed on."""
        return self._tail.is_following

    def end(self) -> None:
        """Let every watcher go: they come back to another instance, or to this one after its restart."""
        self._ended.set()
        for entry in self._entries.values():
            entry.feed.wake()

    def note_outcome(self, outcome: Outcome) -> None:
        """Hear that an event has its outcome; may be called on any thread."""
        if outcome.name in self._entries:
            self._call_soon(self._announce, outcome.name)

    @contextlib.contextmanager
    def watching(self, name: str, protocol: str, *, is_new: bool = False) -> Iterator[Entry]:
        """Hold a place among the watchers, and collect the event's deltas from now on.

        Args:
            name: of the event.
            protocol: metric label.
            is_new: the event is not on the log yet, so that there is nothing to look up.

        Raises:
            Busy: there are as many as there may be.
        """
        if self._watchers >= self._settings.max_watchers:
            message = f"{self._watchers} events are being watched, the limit of gateway.streams.max_watchers"
            raise Busy(message, retry_after_s=5.0)
        entry = self._entry(name, is_new=is_new)
        self._watchers += 1
        entry.watchers += 1
        WATCHERS.labels(protocol).inc()
        try:
            yield entry
        finally:
            WATCHERS.labels(protocol).dec()
            entry.watchers -= 1
            self._watchers -= 1
            entry.idle_since_s = asyncio.get_running_loop().time()
            self._forget_idle()

    async def frames(self, entry: Entry, ticket: Ticket, seen: Seen) -> AsyncIterator[list[Frame]]:
        """Yield what is new as it comes, and at last the outcome; an empty list is a sign of life.

        Args:
            entry: from `watching`.
            ticket: which event.
            seen: what the watcher has already.
        """
        wake = asyncio.Event()
        entry.feed.watchers.add(wake)
        try:
            async for batch in self._follow(entry, ticket, seen, wake):
                yield batch
        finally:
            entry.feed.watchers.discard(wake)

    async def _follow(
        self, entry: Entry, ticket: Ticket, seen: Seen, wake: asyncio.Event
    ) -> AsyncIterator[list[Frame]]:
        loop = asyncio.get_running_loop()
        looked = _Looked()
        heard_at_s = loop.time()
        is_resuming = seen.epoch != 0
        while not self.is_ending:
            wake.clear()
            if not await self._complete(entry, ticket, heard_at_s + self._settings.heartbeat_s):
                heard_at_s = loop.time()
                yield []
                continue
            batch = _some(news(entry.feed, ticket.id, seen))
            if batch:
                if is_resuming:
                    STREAM_RESUMES.labels("continued" if batch[0][0]["type"] == "delta" else "restarted").inc()
                    is_resuming = False
                seen, heard_at_s = batch[-1][1], loop.time()
                yield [frame for frame, _ in batch]
                continue
            await self._look(entry, ticket, looked)
            if looked.outcome is not None and (entry.feed.is_over or loop.time() >= looked.again_at_s):
                yield [last(looked.outcome)]
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(looked.again_at_s, heard_at_s + self._settings.heartbeat_s)):
                    await wake.wait()
            if loop.time() >= heard_at_s + self._settings.heartbeat_s:
                heard_at_s = loop.time()
                yield []

    async def _look(self, entry: Entry, ticket: Ticket, looked: "_Looked") -> None:
        """Ask for the outcome when one was announced, and now and then."""
        now_s = asyncio.get_running_loop().time()
        if looked.outcome is not None or (looked.at == entry.outcomes and now_s < looked.again_at_s):
            return
        looked.at = entry.outcomes
        looked.outcome = await self._outcome(ticket)
        wait_s = _LOOK_AGAIN_S if looked.outcome is None else _LAST_DELTAS_S
        looked.again_at_s = asyncio.get_running_loop().time() + wait_s

    async def _outcome(self, ticket: Ticket) -> Outcome | None:
        try:
            return await self._outcomes(ticket.source, ticket.id, ticket.position, ticket.owner)
        except (Busy, LogUnavailable):
            return None

    def _entry(self, wanted: str, *, is_new: bool) -> Entry:
        entry = self._entries.get(wanted)
        if entry is None:
            entry = Entry(self._settings.max_answer_bytes, is_complete=is_new and self._tail.is_following)
            self._entries[wanted] = entry
        self._entries.move_to_end(wanted)
        return entry

    async def _complete(self, entry: Entry, ticket: Ticket, until_s: float) -> bool:
        """Tell whether the feed has everything from the event on; wait for that until a loop time, or the end.

        Watchers of one event share the look-up.
        """
        loop = asyncio.get_running_loop()
        while entry.held is not None and not self.is_ending and loop.time() < until_s:
            if entry.catching_up is None:
                entry.catching_up = asyncio.ensure_future(self._catch_up(entry, ticket))
            looking, ending = entry.catching_up, asyncio.ensure_future(self.ending(until_s - loop.time()))
            try:
                await asyncio.wait({looking, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ending.cancel()
            if looking.done():
                looking.result()
        return entry.held is None

    async def _catch_up(self, entry: Entry, ticket: Ticket) -> None:
        try:
            fresh, begun = Feed(self._settings.max_answer_bytes), self._begun
            place = Place(ticket.name, ticket.position.partition, ticket.position.timestamp_ms)
            for _ in range(_CATCH_UP_ROUNDS):
                reached = await self._look_up(place, fresh)
                place = place._replace(from_offset=reached.next_offset)
                if reached.is_complete:
                    break
            else:
                fresh.stop()
            if begun != self._begun:
                # The tail began behind the end that this look-up reached: once more.
                return
            if self._entries.get(place.name) is not entry:
                return  # Forgotten meanwhile, and counted no more.
            if entry.is_cut:
                fresh.stop()
            held, entry.held, entry.is_cut = self._let_go(entry), None, False
            self._change(entry, lambda feed: feed.adopt(fresh))
            for arrival in held:
                if arrival.offset >= (place.from_offset or 0):
                    self._change(entry, functools.partial(take, value=arrival.value))
            CATCH_UPS.labels("done").inc()
        except LogUnavailable as error:
            CATCH_UPS.labels("failed").inc()
            _log.warning("deltas.catch_up_failed", event_id=ticket.id, error=str(error))
            await asyncio.sleep(_RETRY_S)
        finally:
            entry.catching_up = None
            entry.feed.wake()

    async def _look_up(self, place: Place, feed: Feed) -> Any:
        limits = CATCH_UP_LIMIT_S, lambda: self.is_ending
        return await in_thread(self._executor, catch_up, self._config, self._topic, place, feed, *limits)

    def _call_soon(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None:
            # The loop may be gone when the thread ends.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function, *arguments)

    def _hand_over(self, arrivals: Sequence[Arrival]) -> None:
        self._call_soon(self._take, arrivals)

    def _hand_over_gap(self) -> None:
        self._call_soon(self._begin_anew)

    def _take(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            entry = self._entries.get(arrival.name)
            if entry is None:
                continue
            if entry.held is not None:
                self._hold(entry, arrival)
                continue
            self._change(entry, functools.partial(take, value=arrival.value))
            entry.feed.wake()
        self._keep_within_bounds()

    def _hold(self, entry: Entry, arrival: Arrival) -> None:
        if entry.held is not None and not entry.is_cut:
            entry.held.append(arrival)
            entry.held_bytes += len(arrival.value or b"")
            self._size_chars += len(arrival.value or b"")

    def _let_go(self, entry: Entry) -> list[Arrival]:
        """Return what an entry holds, which holds nothing then."""
        held, entry.held = entry.held or [], None if entry.held is None else []
        self._size_chars -= entry.held_bytes
        entry.held_bytes = 0
        return held

    def _stop(self, entry: Entry) -> None:
        """Give up the text of an event; its result will tell."""
        self._change(entry, Feed.stop)
        entry.is_cut = bool(self._let_go(entry)) or entry.is_cut

    def _change(self, entry: Entry, change: Callable[[Feed], None]) -> None:
        """Change a feed, and count what it holds."""
        self._size_chars -= entry.feed.size_chars
        change(entry.feed)
        self._size_chars += entry.feed.size_chars

    def _announce(self, wanted: str) -> None:
        entry = self._entries.get(wanted)
        if entry is not None:
            entry.outcomes += 1
            entry.feed.wake()

    def _begin_anew(self) -> None:
        """Look up everything again: records may have been missed."""
        self._begun += 1
        for entry in self._entries.values():
            if entry.held is None:
                entry.held = []
                entry.feed.wake()

    def _keep_within_bounds(self) -> None:
        """Forget those that nobody watches, then let the newest tell nothing more."""
        if self._size_chars <= self._settings.max_buffered_bytes:
            return
        self._forget_idle(everything=True)
        for entry in reversed(self._entries.values()):
            if self._size_chars <= self._settings.max_buffered_bytes:
                return
            self._stop(entry)
            entry.feed.wake()

    def _forget_idle(self, *, everything: bool = False) -> None:
        before_s = asyncio.get_running_loop().time() - LINGER_S
        idle = [name for name, entry in self._entries.items() if not entry.watchers]
        excess = len(idle) - _MAX_IDLE
        for number, name in enumerate(idle):
            entry = self._entries[name]
            if everything or number < excess or entry.idle_since_s < before_s:
                self._stop(entry)
                del self._entries[name]


def _some(frames: Iterator[tuple[Frame, Seen]]) -> list[tuple[Frame, Seen]]:
    """Return the next frames, as many as are sent at a time."""
    found: list[tuple[Frame, Seen]] = []
    chars = 0
    for frame in frames:
        found.append(frame)
        chars += len(frame[0].get("text", ""))
        if chars >= _BATCH_CHARS or len(found) >= _BATCH_FRAMES:
            break
    return found


class _Looked:
    """What a watcher knows of the outcome, and when it looks again."""

    def __init__(self) -> None:
        self.at = -1
        self.outcome: Outcome | None = None
        self.again_at_s = 0.0
