"""Ends waits in time with one timer for all waits of one length, where `asyncio.timeout` takes one timer each.

A timer costs more than the rest of a short wait (5 us, docs/adr/0004), and a request has two. In exchange a wait may
end late by what the timer is late, never early.
"""

import asyncio

# Seconds -> its waits, oldest first: all of one length, so the oldest ends first. Of the loop that asked last.
_queues: dict[float, "_Queue"] = {}


class Deadline:
    """A block that is cancelled after `timeout_s`, and then raises TimeoutError: `with Deadline(8.0):`.

    Inside a task only, as `asyncio.timeout`.
    """

    __slots__ = ("_cancelling", "_queue", "_task", "_timeout_s", "at_s", "is_expired")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.is_expired = False

    def __enter__(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        if task is None:
            message = "a deadline needs a task"
            raise RuntimeError(message)
        self._task = task
        self._cancelling = task.cancelling()
        queue = _queues.get(self._timeout_s)
        if queue is None or queue.loop is not loop:
            queue = _queues[self._timeout_s] = _Queue(loop, self._timeout_s)
        self._queue = queue
        self.at_s = loop.time() + self._timeout_s
        queue.waits[self] = None
        if queue.timer is None:
            queue.start(self.at_s)

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
    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.loop = loop
        self._timeout_s = timeout_s
        self.waits: dict[Deadline, None] = {}
        self.timer: asyncio.TimerHandle | None = None

    def start(self, at_s: float) -> None:
        self.timer = self.loop.call_at(at_s, self._sweep)

    def _sweep(self) -> None:
        self.timer = None
        now_s = self.loop.time()
        for wait in list(self.waits):
            if wait.at_s > now_s:
                self.start(wait.at_s)
                return
            del self.waits[wait]
            wait.expire()
        if _queues.get(self._timeout_s) is self:
            # Lengths may be as many as waits: what a Lambda function has left is another one each time.
            del _queues[self._timeout_s]
