"""Ends waits in time with one timer for all waits of one length, where `asyncio.timeout` takes one timer each.

A timer costs more than the rest of a short wait (5 us, docs/adr/0004), and a request has two. In exchange a wait may
end late by what the timer is late, never early.
"""

import asyncio

# (loop, seconds) -> its waits, oldest first: all of one length, so the oldest ends first.
_queues: dict[tuple[int, float], "_Queue"] = {}


class Deadline:
    """A block that is cancelled after `timeout_s`, and then raises TimeoutError: `with Deadline(8.0):`.

    Inside a task only, as `asyncio.timeout`.
    """

    __slots__ = ("_cancelling", "_queue", "_task", "at_s", "is_expired")

    def __init__(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        key = (id(loop), timeout_s)
        queue = _queues.get(key)
        if queue is None or queue.loop is not loop:
            queue = _queues[key] = _Queue(loop)
        self._queue = queue
        self.at_s = loop.time() + timeout_s
        self.is_expired = False

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        if task is None:
            message = "a deadline needs a task"
            raise RuntimeError(message)
        self._task = task
        self._cancelling = task.cancelling()
        self._queue.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        """End; as `asyncio.Timeout`, only the own cancellation becomes a TimeoutError."""
        self._queue.waits.pop(self, None)
        if self.is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task."""
        self.is_expired = True
        self._task.cancel()


class _Queue:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waits: dict[Deadline, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, wait: Deadline) -> None:
        self.waits[wait] = None
        if self._timer is None:
            self._timer = self.loop.call_at(wait.at_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now_s = self.loop.time()
        for wait in list(self.waits):
            if wait.at_s > now_s:
                self._timer = self.loop.call_at(wait.at_s, self._sweep)
                return
            del self.waits[wait]
            wait.expire()
