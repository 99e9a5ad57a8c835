"""Notices that the machine's clock was set: what is fresh and what is stale is judged by it."""

import time
from collections.abc import Callable

from contracts.logs import logger
from contracts.metrics import CLOCK_STEPS

# Slewing changes a clock by half a millisecond a second at most; a step of less than this no tolerance notices.
_STEP_S = 2.0
# As long as a stamp may be off with most senders: until then both kinds of stamps come.
_WARNED_S = 300.0

_log = logger("gateway")


class ClockWatch:
    """Compares the clock with one that cannot be set.

    Args:
        wall: Unix seconds.
        monotonic: seconds that only go on.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset_s = wall() - monotonic()
        self._stepped_at_s = float("-inf")

    def look(self) -> None:
        """Compare; every second or so."""
        offset_s = self._wall() - self._monotonic()
        step_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(step_s) >= _STEP_S:
            self._stepped_at_s = self._monotonic()
            CLOCK_STEPS.inc()
            _log.warning("gateway.clock_stepped", by_s=round(step_s, 1))

    @property
    def has_stepped(self) -> bool:
        """Tell whether it was set in the last minutes."""
        return self._monotonic() - self._stepped_at_s < _WARNED_S
