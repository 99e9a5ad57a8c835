"""Cuts off calls that do not end by themselves: one sweep over all of them, because a timer for each costs more.

A provider keeps its time limit by itself; this is for one that does not, so a second more or less does no harm.
"""

import asyncio

_SWEEP_EVERY_S = 1.0


class Watched:
    """One call, in the task that makes it.

    Attributes:
        is_cut: it was overdue, and its task was cancelled for it.
    """

    __slots__ = ("_asked", "end_s", "is_cut", "task")

    def __init__(self, task: "asyncio.Task[object]", end_s: float) -> None:
        self.task = task
        self.end_s = end_s
        self.is_cut = False
        self._asked = task.cancelling()

    def take_back(self) -> bool:
        """Take the cancellation back; False when somebody else has asked for one as well."""
        return self.is_cut and self.task.uncancel() <= self._asked


class Overdue:
    """The calls of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._time = loop.time
        self._later = loop.call_later
        self._calls: dict[Watched, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, limit_s: float) -> Watched:
        """Watch the running task until `leave`."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: coroutines run in tasks
        call = Watched(task, self._time() + limit_s)
        self._calls[call] = None
        if self._timer is None:
            self._timer = self._later(_SWEEP_EVERY_S, self._sweep)
        return call

    def leave(self, call: Watched) -> None:
        """Watch it no more."""
        del self._calls[call]

    def _sweep(self) -> None:
        now_s = self._time()
        for call in self._calls:
            if now_s >= call.end_s and not call.is_cut:
                call.is_cut = True
                call.task.cancel()
        self._timer = self._later(_SWEEP_EVERY_S, self._sweep) if self._calls else None


_latest: Overdue | None = None


def overdue() -> Overdue:
    """Return the running loop's; whoever watches a call keeps it for `leave`."""
    global _latest  # noqa: PLW0603 - one process has one loop; tests have one after the other
    loop = asyncio.get_running_loop()
    if _latest is None or _latest.loop is not loop:
        _latest = Overdue(loop)
    return _latest
