"""Paid calls: a model call outlives the tenure that started it, and its answer waits for the redelivered event.

When a drain runs out of time, the engine lets go of an item that is in its call: the call goes on in the item's task,
because it is being paid for, and its slot stays taken until it ends. Its answer is kept, bounded, under the event's
position.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import msgspec

from contracts.codec import Position
from contracts.errors import ProviderUnavailable, is_unsent

T = TypeVar("T")


class Call(msgspec.Struct, Generic[T], eq=False):
    """One call, and who else waits for it."""

    is_done: bool = False
    answer: T | None = None
    waiters: list["asyncio.Future[T]"] = []


class PaidCalls(Generic[T]):
    """Calls in flight and answers not yet on the log, by event position.

    Args:
        size_of: bytes an answer counts for.
        max_kept: answers kept for redelivered events at most.
        max_kept_bytes: their bytes at most; the oldest are dropped first.
    """

    def __init__(self, size_of: Callable[[T], int], max_kept: int = 1024, max_kept_bytes: int = 16 * 2**20) -> None:
        self._size_of = size_of
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._calls: dict[Position, Call[T]] = {}
        self._kept: dict[Position, int] = {}

    def begin(self, position: Position) -> Call[T]:
        """Note a call that begins; whoever makes it tells `run` or `answered` what became of it."""
        entry: Call[T] = Call()
        self._calls[position] = entry
        return entry

    async def run(
        self,
        position: Position,
        call: Callable[..., Awaitable[T]],
        on_end: Callable[[], None],
        *args: Any,
        entry: Call[T] | None = None,
    ) -> T:
        """Make the call, or take part in the one already made for this event.

        Args:
            position: of the event.
            call: makes the call.
            on_end: run when the call has ended; frees the slot.
            args: of the call; a closure in their place would cost its caller more than the call itself.
            entry: of a call that has begun already, which is then the one meant.

        Raises:
            ProviderUnavailable: the call was cancelled, and nobody had asked for it.
        """
        try:
            if entry is None:
                known = self._calls.get(position)
                if known is not None:
                    self._kept.pop(position, None)
                    return await self._join(known)
                entry = self.begin(position)
            try:
                answer = await call(*args)
            except BaseException as raised:
                error = asked_for(raised)
                if self._calls.get(position) is entry:
                    self.drop(position)
                _tell(entry, error)
                if error is raised:
                    # Nobody may take it up, as a cancellation; its traceback names this frame.
                    del error
                    raise
                raise error from None
            self.answered(position, entry, answer)
            return answer
        finally:
            on_end()

    def answered(self, position: Position, entry: Call[T], answer: T) -> None:
        """Note the answer to a call."""
        entry.is_done, entry.answer = True, answer
        for waiter in entry.waiters:
            if not waiter.done():
                waiter.set_result(answer)
        if position in self._kept:
            self.keep(position)

    @staticmethod
    async def _join(entry: Call[T]) -> T:
        if entry.is_done:
            return entry.answer  # type: ignore[return-value]  # done: the answer is there, whatever T is
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        entry.waiters.append(waiter)
        return await waiter

    def keep(self, position: Position) -> None:
        """Keep an answer, or the call in flight, of an item that was let go, for the redelivered event."""
        entry = self._calls.get(position)
        if entry is None:
            return
        self._kept[position] = self._size_of(entry.answer) if entry.is_done else 0  # type: ignore[arg-type]  # as above
        # Calls still in flight are never dropped: their number is bounded by the slots they hold.
        finished = [kept for kept in self._kept if self._calls[kept].is_done]
        while finished and (len(self._kept) > self._max_kept or sum(self._kept.values()) > self._max_kept_bytes):
            self.drop(finished.pop(0))

    def drop(self, position: Position) -> None:
        """Forget an answer: it is on the log now, or nobody will ask for it."""
        self._kept.pop(position, None)
        self._calls.pop(position, None)

    def is_awaited(self, position: Position) -> bool:
        """Tell whether the event of a call was delivered again and waits for it."""
        entry = self._calls.get(position)
        return entry is not None and not all(waiter.done() for waiter in entry.waiters)

    def __contains__(self, position: Position) -> bool:
        return position in self._calls

    @property
    def kept(self) -> int:
        """Return the number of answers and calls kept for redelivered events."""
        return len(self._kept)


def asked_for(error: BaseException) -> BaseException:
    """Return an error as it counts: a cancellation that nobody asked for is the provider's fault."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return error
    return ProviderUnavailable("the provider cancelled the call", possibly_billed=True)


def _tell(entry: Call[T], error: BaseException) -> None:
    """Tell all who wait of one error: the call failed once, however many they are."""
    if not isinstance(error, Exception):
        error = ProviderUnavailable("the call was cut off", possibly_billed=not is_unsent(error))
    for waiter in entry.waiters:
        if not waiter.done():
            waiter.set_exception(error)


def let_go(failure: BaseException) -> None:
    """Have a failure that was taken up hold nothing any more: its traceback names the frames that name the failure.

    In such a cycle all of its event would wait for the next collection of garbage; see docs/adr/0030.
    """
    one: BaseException | None = failure
    while one is not None and one.__traceback__ is not None:
        one.__traceback__ = None
        one = one.__cause__ or one.__context__


def let_go_of_cancelled(task: "asyncio.Task[Any]") -> None:
    """Have a task that has ended not keep the cancellation that ended it: its traceback may name the task."""
    if task.cancelled():
        with contextlib.suppress(asyncio.CancelledError):
            # Once it is raised from here, the task does not have it any more.
            task.exception()
