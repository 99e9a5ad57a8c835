"""Requests that wait for an outcome, and what wakes them: a reply, or the tail of the result topics."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from weakref import WeakValueDictionary

from contracts.errors import Busy
from contracts.metrics import SYNC_WAITING
from gateways.egress.forecast import Forecast
from gateways.egress.outcomes import Outcome

_BUSY_RETRY_S = 2.0


class Waiter:
    """One place among those who wait; given back when its block ends."""

    def __init__(self, waiters: "Waiters") -> None:
        self._waiters = waiters
        self._future: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        self._owner: str | None = None
        self.result_id = ""

    def expect(self, result_id: str, owner: str | None = None) -> None:
        """Say whose outcome is waited for; from now on none is missed. Call it before the event is produced.

        Args:
            result_id: of the outcome.
            owner: who alone may get it; None for whoever has its ticket.
        """
        self.result_id, self._owner = result_id, owner
        self._waiters.expect(self)

    async def outcome(self, timeout_s: float) -> Outcome | None:
        """Return the outcome; None when the time is up or this process ends."""
        done, _ = await asyncio.wait({self._future}, timeout=max(0.0, timeout_s))
        return self._future.result() if done else None

    def wake(self, outcome: Outcome | None) -> None:
        """Give it its outcome, or send it on without one; what comes first stands."""
        is_foreign = outcome is not None and self._owner not in {None, outcome.owner}
        if not is_foreign and not self._future.done():
            self._future.set_result(outcome)


class Waiters:
    """Everybody who waits in this process, bounded; belongs to one event loop, except for `offer`.

    Args:
        limit: at a time.
        forecast: learns from every outcome.
    """

    def __init__(self, limit: int, forecast: Forecast) -> None:
        self._limit = limit
        self._places = 0
        self._waiting: defaultdict[str, set[Waiter]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        # A lock lives as long as somebody holds it or waits for it.
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.forecast = forecast
        self.is_ending = False

    @property
    def is_full(self) -> bool:
        """Tell whether every place is taken."""
        return self._places >= self._limit

    @contextlib.contextmanager
    def place(self) -> Iterator[Waiter]:
        """Take a place.

        Raises:
            Busy: all are taken.
        """
        if self.is_full:
            message = f"{self._limit} requests wait for their outcome already"
            raise Busy(message, retry_after_s=_BUSY_RETRY_S)
        self._loop = self._loop or asyncio.get_running_loop()
        waiter = Waiter(self)
        self._places += 1
        SYNC_WAITING.set(self._places)
        try:
            yield waiter
        finally:
            self._places -= 1
            SYNC_WAITING.set(self._places)
            self._forget(waiter)

    @contextlib.asynccontextmanager
    async def turn(self, result_id: str, owner: str) -> AsyncIterator[None]:
        """Keep out others with the same event of the same caller until the block ends."""
        lock = self._turns.setdefault((result_id, owner), asyncio.Lock())
        async with lock:
            yield

    def expect(self, waiter: Waiter) -> None:
        """Wake a waiter for its result id."""
        self._waiting[waiter.result_id].add(waiter)
        if self.is_ending:
            waiter.wake(None)

    def offer(self, outcome: Outcome) -> None:
        """Take note of an outcome; safe to call from any thread, and cheap where nobody waits for it."""
        if self._loop is not None and (outcome.result_id in self._waiting or outcome.result_id in self.forecast):
            with contextlib.suppress(RuntimeError):  # the loop has ended; so has everybody who waited
                self._loop.call_soon_threadsafe(self._take, outcome)

    def end(self) -> None:
        """Send everybody on without an outcome: this process ends, their events do not."""
        self.is_ending = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.wake(None)

    def _take(self, outcome: Outcome) -> None:
        self.forecast.end(outcome.result_id)
        for waiter in self._waiting.get(outcome.result_id, ()):
            waiter.wake(outcome)

    def _forget(self, waiter: Waiter) -> None:
        others = self._waiting.get(waiter.result_id)
        if others is not None:
            others.discard(waiter)
            if not others:
                del self._waiting[waiter.result_id]
