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
        self._first = self._second = 0

    def add(self, first: int = 0, second: int = 0) -> None:
        """Count something now."""
        now = self._clock()
        if not self._steps or now - self._steps[-1][0] >= self._step_s:
            # Only a new step can make an old one due; what is added in between changes nothing.
            self._forget()
            self._steps.append([now, 0, 0])
        self._steps[-1][1] += first
        self._steps[-1][2] += second
        self._first += first
        self._second += second

    def sums(self) -> tuple[int, int]:
        """Return both counts."""
        self._forget()
        return self._first, self._second

    def clear(self) -> None:
        """Forget everything."""
        self._steps.clear()
        self._first = self._second = 0

    def _forget(self) -> None:
        while self._steps and self._clock() - self._steps[0][0] >= self._step_s * _STEPS:
            _, first, second = self._steps.popleft()
            self._first -= int(first)
            self._second -= int(second)
