"""Paid calls: a model call outlives the item that started it, and its answer waits for the redelivered event.

When a drain runs out of time, the item is dropped and its call goes on, because it is being paid for. Its slot stays
taken until it ends; its answer is kept, bounded, under the event's position.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from contracts.codec import Position
from contracts.errors import ProviderUnavailable

T = TypeVar("T")


class PaidCalls(Generic[T]):
    """Calls in flight and answers not yet on the log, by event position.

    Args:
        size_of: bytes an answer counts for.
        max_kept: answers of dropped items kept at most.
        max_kept_bytes: their bytes at most; the oldest are dropped first.
    """

    def __init__(self, size_of: Callable[[T], int], max_kept: int = 1024, max_kept_bytes: int = 16 * 2**20) -> None:
        self._size_of = size_of
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._calls: dict[Position, asyncio.Task[T]] = {}
        self._kept: dict[Position, int] = {}

    async def run(self, position: Position, call: Callable[[], Awaitable[T]], on_end: Callable[[], None]) -> T:
        """Make the call, or take part in the one already made for this event.

        Args:
            position: of the event.
            call: makes the call.
            on_end: run when the call has ended, also after this coroutine was cancelled; frees the slot.
        """
        task = self._calls.get(position)
        if task is None:
            task = asyncio.ensure_future(self._call(call))
            self._calls[position] = task
            task.add_done_callback(lambda done: self._ended(position, done))
        self._kept.pop(position, None)
        task.add_done_callback(lambda _done: on_end())
        return await asyncio.shield(task)

    @staticmethod
    async def _call(call: Callable[[], Awaitable[T]]) -> T:
        try:
            return await call()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Nobody asked for it: without this the event would neither end nor be tried again.
            message = "the provider cancelled the call"
            raise ProviderUnavailable(message, possibly_billed=True) from None

    def _ended(self, position: Position, task: asyncio.Task[T]) -> None:
        is_failed = task.cancelled() or task.exception() is not None
        if is_failed and self._calls.get(position) is task:
            self.drop(position)

    def keep(self, position: Position) -> None:
        """Keep an answer, or the call in flight, of a dropped item for the redelivered event."""
        task = self._calls.get(position)
        if task is None:
            return
        self._kept[position] = self._size_of(task.result()) if task.done() else 0
        task.add_done_callback(lambda done: self._weigh(position, done))

    def _weigh(self, position: Position, task: asyncio.Task[T]) -> None:
        if position in self._kept and not task.cancelled() and task.exception() is None:
            self._kept[position] = self._size_of(task.result())
        # Calls still in flight are never dropped: their number is bounded by the slots they hold.
        finished = [kept for kept in self._kept if self._calls[kept].done()]
        while finished and (len(self._kept) > self._max_kept or sum(self._kept.values()) > self._max_kept_bytes):
            self.drop(finished.pop(0))

    def drop(self, position: Position) -> None:
        """Forget an answer: it is on the log now, or nobody will ask for it."""
        self._kept.pop(position, None)
        self._calls.pop(position, None)

    def __contains__(self, position: Position) -> bool:
        return position in self._calls

    @property
    def kept(self) -> int:
        """Return the number of answers and calls kept for redelivered events."""
        return len(self._kept)

    async def aclose(self) -> None:
        """Cancel every call."""
        tasks = list(self._calls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._calls.clear()
        self._kept.clear()
