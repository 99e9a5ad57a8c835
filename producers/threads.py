"""Threads for what blocks, and what is told where none can be started.

Of `DaemonPool`, a call that hangs in one of them cannot hold up the end of the process.

`concurrent.futures.ThreadPoolExecutor` joins its threads at exit: one blocking read would delay that.
"""

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from contracts.errors import Retryable

Answer = TypeVar("Answer")
Given = ParamSpec("Given")
_Work = tuple["Future[Any]", Callable[[], Any]]


class NoThread(Retryable):
    """Raise when there is no thread for some work and none can be started, as in a container at its limit of them.

    The work is not done, also not later.
    """

    reason = "no_thread"


async def in_pool(
    pool: Executor | None, request: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs
) -> Answer:
    """Return what a blocking request returns, made in a thread of a pool; None = the loop's.

    Raises:
        NoThread: none can be started for it now; the request is not made.
    """
    wanted = [request]

    def run() -> Answer:
        return wanted.pop()(*args, **kwargs)

    try:
        answer = asyncio.get_running_loop().run_in_executor(pool, run)
    except RuntimeError as error:
        # It is queued all the same: of those who ask again, the next thread would make every request.
        wanted.clear()
        raise NoThread(str(error)) from error
    return await answer


class DaemonPool:
    """Runs functions in at most `size` threads, started as they are needed."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: deque[_Work] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_closed = False

    @property
    def busy(self) -> int:
        """How many threads are at work."""
        with self._changed:
            return self._threads - self._idle

    async def run(self, function: Callable[Given, Answer], *args: Given.args, **kwargs: Given.kwargs) -> Answer:
        """Return what a blocking function returns; a caller that is cancelled takes it back, as `submit` says.

        Raises:
            NoThread: nobody can do it now.
        """
        try:
            future = self.submit(functools.partial(function, *args, **kwargs))
        except RuntimeError as error:
            raise NoThread(str(error)) from error
        return await asyncio.wrap_future(future)

    def submit(self, function: Callable[[], Answer]) -> "Future[Answer]":
        """Queue a function; cancelling the future takes it back as long as no thread has begun it.

        Raises:
            RuntimeError: there is no thread and none can be started; the function will not be run.
        """
        future: Future[Answer] = Future()
        with self._changed:
            if self._is_closed:
                future.cancel()
                return future
            self._work.append((future, function))
            if len(self._work) > self._idle and self._threads < self._size:
                self._start_thread()
            self._changed.notify()
        return future

    def _start_thread(self) -> None:
        self._threads += 1
        try:
            threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        except RuntimeError:
            # At its limit of threads a container refuses another one: those that there are take the work in turn.
            self._threads -= 1
            if not self._threads:
                self._work.pop()
                raise

    def close(self) -> None:
        """Cancel what no thread has begun, and let the threads end; does not wait for them."""
        with self._changed:
            self._is_closed = True
            for future, _ in self._work:
                future.cancel()
            self._work.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            future, function = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:  # noqa: BLE001 - handed to whoever waits, as an executor does
                    future.set_exception(error)
            # A thread waiting for work must not keep the last answer alive.
            del item, future, function

    def _next(self) -> _Work | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._work or self._is_closed)
            self._idle -= 1
            if self._work:
                return self._work.popleft()
            self._threads -= 1
            return None
