"""Gathers single items into calls for several, bounded in number, bytes and time; pure asyncio.

Reads: nothing. Writes: nothing. It knows neither models nor prompts: streams/batching says what a call is, and which
failures one item of many may have caused. It needs no closing: a call that nobody waits for any more is cancelled.
"""

import asyncio
import copy
import functools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from streams.engine.calls import let_go, let_go_of_cancelled

T = TypeVar("T")
R = TypeVar("R")
E = TypeVar("E", bound=Exception)
# Timers fire at the clock's resolution, a little early or late; so near to its end a wait counts as over.
_NEARLY_S = 0.001


class Unmatched(Exception):
    """Stands for the answer of an item for which a call gave none, or more than one: the item is called alone.

    Raised by a whole call it says that no item can be matched; then the call is split in halves.
    """


@dataclass(frozen=True)
class Limits:
    """Bounds of a batcher.

    Attributes:
        max_items: items of one call.
        max_bytes: bytes of one call; a single item above it goes alone.
        max_wait_s: how long the first item of a call waits for others, seconds; 0 takes what has come at this moment.
        max_calls: calls at a time; while all are taken, items go on gathering.
    """

    max_items: int
    max_bytes: int
    max_wait_s: float
    max_calls: int


@dataclass(eq=False)
class _Waiter(Generic[T, R]):
    item: T
    size_bytes: int
    due_at: float
    answer: asyncio.Future[R]
    part: "_Part[T, R] | None" = None


@dataclass(eq=False)
class _Part(Generic[T, R]):
    """What one call is made for."""

    waiters: list[_Waiter[T, R]]
    task: "asyncio.Task[None] | None" = field(default=None, repr=False)


class Batcher(Generic[T, R]):
    """Calls for several items at a time, in the order in which they came.

    Args:
        call: makes one call; returns one outcome per item, in their order, where an exception is that item's failure.
        limits: bounds.
        is_divisible: tells of a failed call whether one item may have caused it; then the call is split in halves, down
            to single items. Every other failure goes to each item unchanged.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        limits: Limits,
        is_divisible: Callable[[Exception], bool],
    ) -> None:
        self._call = call
        self._limits = limits
        self._is_divisible = is_divisible
        self._gathering: deque[_Waiter[T, R]] = deque()
        self._gathered_bytes = 0
        # Formed already: halves, and items that go alone. They come first, their items have waited longest.
        self._parts: deque[_Part[T, R]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        # uvloop answers a time that has passed with a handle that does not know when: the time is kept beside it.
        self._timer: tuple[float, asyncio.Handle] | None = None

    @property
    def waiting(self) -> int:
        """Return the number of items that no call has taken yet."""
        return len(self._gathering) + sum(len(part.waiters) for part in self._parts)

    @property
    def running(self) -> int:
        """Return the number of calls in flight."""
        return len(self._running)

    async def submit(self, item: T, size_bytes: int, *, alone: bool = False) -> R:
        """Return the item's result.

        A cancelled item is taken out; the call that has it goes on for the others.

        Args:
            item: what is handed to the call.
            size_bytes: what it counts for.
            alone: it must not share a call.

        Raises:
            Exception: what the call raised, or returned for this item.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter[T, R](item, size_bytes, loop.time() + self._limits.max_wait_s, loop.create_future())
        if alone:
            self._parts.append(_Part([waiter]))
        else:
            self._gathering.append(waiter)
            self._gathered_bytes += size_bytes
        self._pump(is_time=False)
        try:
            return await waiter.answer
        finally:
            self._leave(waiter)

    def _leave(self, waiter: _Waiter[T, R]) -> None:
        """Forget an item that has its outcome, or whose caller was cancelled."""
        if not waiter.answer.cancel() and not waiter.answer.cancelled():
            # Looked at, so that a failure that came together with a cancel is not reported as overlooked.
            waiter.answer.exception()
            waiter.part = None
            return
        if waiter.part is not None:
            task = waiter.part.task
            if task is not None and all(other.answer.cancelled() for other in waiter.part.waiters):
                task.cancel()
            waiter.part = None
            return
        if waiter in self._gathering:
            self._gathering.remove(waiter)
            self._gathered_bytes -= waiter.size_bytes

    def _pump(self, *, is_time: bool = True) -> None:
        """Start the calls that may start, and set the timer for the next one that may not yet.

        Args:
            is_time: a wait may be over. Not so when an item has just come: others may come at the same moment.
        """
        while len(self._running) < self._limits.max_calls and (part := self._next(is_time=is_time)) is not None:
            part.task = asyncio.ensure_future(self._run(part))
            for waiter in part.waiters:
                waiter.part = part
            self._running.add(part.task)
            part.task.add_done_callback(functools.partial(self._ended, part))
        self._set_timer()

    def _set_timer(self) -> None:
        # While every call is taken, the end of one is what items wait for.
        is_needed = self._gathering and len(self._running) < self._limits.max_calls
        due_at = self._gathering[0].due_at if is_needed else None
        if self._timer is not None and self._timer[0] != due_at:
            self._timer[1].cancel()
            self._timer = None
        if self._timer is None and due_at is not None:
            self._timer = due_at, asyncio.get_running_loop().call_at(due_at, self._time)

    def _time(self) -> None:
        self._timer = None
        self._pump()

    def _next(self, *, is_time: bool) -> _Part[T, R] | None:
        while self._parts:
            part = self._parts.popleft()
            part.waiters = [waiter for waiter in part.waiters if not waiter.answer.done()]
            if part.waiters:
                return part
        limits = self._limits
        while self._gathering and self._gathering[0].answer.done():
            self._gathered_bytes -= self._gathering.popleft().size_bytes
        if not self._gathering:
            return None
        is_full = len(self._gathering) >= limits.max_items or self._gathered_bytes >= limits.max_bytes
        is_due = is_time and self._gathering[0].due_at <= asyncio.get_running_loop().time() + _NEARLY_S
        return self._form() if is_full or is_due else None

    def _form(self) -> _Part[T, R]:
        """Take the items of the next call, the oldest first."""
        taken: list[_Waiter[T, R]] = []
        taken_bytes = 0
        while self._gathering and len(taken) < self._limits.max_items:
            first = self._gathering[0]
            if taken and taken_bytes + first.size_bytes > self._limits.max_bytes:
                break
            self._gathered_bytes -= first.size_bytes
            self._gathering.popleft()
            # Cancelled a moment ago, and not taken out yet.
            if not first.answer.done():
                taken_bytes += first.size_bytes
                taken.append(first)
        return _Part(taken)

    def _ended(self, part: _Part[T, R], task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        # A failure names these by its traceback, and they name the failure: in such a cycle all items of the part would
        # wait for the next collection of garbage.
        part.waiters.clear()
        let_go_of_cancelled(task)
        self._pump()

    async def _run(self, part: _Part[T, R]) -> None:
        waiters = part.waiters
        try:
            outcomes = await self._call([waiter.item for waiter in waiters])
            if len(outcomes) != len(waiters):
                message = f"{len(outcomes)} outcomes for {len(waiters)} items"
                raise Unmatched(message)  # noqa: TRY301 - the one place that treats failed calls is below
        except asyncio.CancelledError:
            for waiter in waiters:
                waiter.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - every failure of a call is somebody's outcome
            self._failed(waiters, error)
            return
        for waiter, outcome in zip(waiters, outcomes, strict=True):
            if isinstance(outcome, Unmatched) and len(waiters) > 1:
                self._again([waiter])
            else:
                _settle(waiter.answer, outcome)

    def _failed(self, waiters: list[_Waiter[T, R]], error: Exception) -> None:
        if len(waiters) > 1 and (isinstance(error, Unmatched) or self._is_divisible(error)):
            let_go(error)
            half = (len(waiters) + 1) // 2
            self._again(waiters[:half])
            self._again(waiters[half:])
            return
        # The first is who tells the gate that the call has failed: not one whose caller has left.
        staying = (waiter for waiter in waiters if not waiter.answer.done())
        for number, waiter in enumerate(staying):
            _settle(waiter.answer, error if number == 0 else echo_of(error))

    def _again(self, waiters: list[_Waiter[T, R]]) -> None:
        staying = [waiter for waiter in waiters if not waiter.answer.done()]
        for waiter in staying:
            waiter.part = None
        if staying:
            self._parts.append(_Part(staying))


def echo_of(error: Exception) -> Exception:
    """Return an error of its own for one more item of a failed call, so that no two items share a traceback."""
    try:
        echo = copy.copy(error)
    except Exception:  # noqa: BLE001 - an exception that cannot be copied is shared
        return error
    echo.__cause__ = error
    return as_echo(echo)


def as_echo(error: E) -> E:
    """Mark an error as one more item's of a call of which others tell: it failed once, however many items it had."""
    error.is_echo = True  # type: ignore[attr-defined]
    return error


def is_echo(error: BaseException) -> bool:
    """Tell whether an error is a further item's of a call."""
    return bool(getattr(error, "is_echo", False))


def as_shared(error: Exception) -> None:
    """Mark a failure as one that another item of the call, or their number, may have caused."""
    error.is_shared = True  # type: ignore[attr-defined]


def is_shared(error: BaseException) -> bool:
    """Tell whether another item of the call, or their number, may have caused a failure."""
    return bool(getattr(error, "is_shared", False))


def _settle(answer: "asyncio.Future[Any]", outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
