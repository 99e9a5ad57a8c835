"""Two counts over a sliding window, in steps: memory does not depend on the rate."""

from collections import deque
from collections.abc import Callable

_STEPS = 10


class SlidingCounts:
    """Counts two kinds of things, each forgotten after the window.

    Args:
        window_s: how long something counts; it is forgotten in steps of a tenth of that.
        clock: loop time, seconds.
    """

    def __init__(self, window_s: float, clock: Callable[[], float]) -> None:
        self._step_s = window_s / _STEPS
        self._clock = clock
        self._steps: deque[list[float]] = deque()
        self._step: list[float] = []
        self._step_ends = float("-inf")
        self._first = self._second = 0

    def add(self, first: int = 0, second: int = 0) -> None:
        """Count something now."""
        now = self._clock()
        if now >= self._step_ends:
            # Only a new step can make an old one due; what is added in between changes nothing.
            self._forget()
            self._step = [now, 0, 0]
            self._step_ends = now + self._step_s
            self._steps.append(self._step)
        if first:
            self._step[1] += first
            self._first += first
        if second:
            self._step[2] += second
            self._second += second

    def sums(self) -> tuple[int, int]:
        """Return both counts."""
        self._forget()
        return self._first, self._second

    def clear(self) -> None:
        """Forget everything."""
        self._steps.clear()
        self._step_ends = float("-inf")
        self._first = self._second = 0

    def _forget(self) -> None:
        while self._steps and self._clock() - self._steps[0][0] >= self._step_s * _STEPS:
            _, first, second = forgotten = self._steps.popleft()
            if forgotten is self._step:
                self._step_ends = float("-inf")
            self._first -= int(first)
            self._second -= int(second)
