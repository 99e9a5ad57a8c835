"""The gate in front of a model: closed while nothing can succeed, so that a fault is waited out, not dead-lettered.

Closes at once on a configuration fault (every event would fail until an operator acts), and after a run of failures
without a success in between on an outage. While closed, one probe at a time goes through; its success opens the gate.
"""

import asyncio
import contextlib
from collections.abc import Callable

# An outage is this many failures in a row; fewer may be bad luck of single events.
OUTAGE_FAILURES = 8
FIRST_PROBE_S = 1.0
MAX_PROBE_S = 30.0


class Gate:
    """Open, or closed for a reason.

    Args:
        on_change: told the reason when it closes and None when it opens.
        clock: loop time, seconds.
    """

    def __init__(self, on_change: Callable[[str | None], None], clock: Callable[[], float]) -> None:
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._reason: str | None = None
        self._probe_at = 0.0
        self._probe_every_s = FIRST_PROBE_S
        self._opened = asyncio.Event()
        self._opened.set()

    @property
    def reason(self) -> str | None:
        """Return why it is closed; None when open."""
        return self._reason

    def admits(self) -> bool:
        """Tell whether a call may go through now; while closed, take the probe's turn when it is due."""
        if self._reason is None:
            return True
        if self._clock() < self._probe_at:
            return False
        self._probe_at = self._clock() + self._probe_every_s
        self._probe_every_s = min(2 * self._probe_every_s, MAX_PROBE_S)
        return True

    async def wait(self, limit_s: float) -> None:
        """Return when it opens, when the next probe is due, or after `limit_s`."""
        wait_s = min(limit_s, max(0.0, self._probe_at - self._clock()))
        # Not wait_for: on Python 3.11 it swallows a cancel that comes together with the opening.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._opened.wait()

    def succeeded(self) -> None:
        """Note a success: the gate opens."""
        self._failures = 0
        if self._reason is not None:
            self._reason = None
            self._probe_every_s = FIRST_PROBE_S
            self._opened.set()
            self._on_change(None)

    def failed(self, reason: str, *, is_fault: bool) -> None:
        """Note a failure.

        Args:
            reason: slug of the error.
            is_fault: True for a configuration fault, which closes at once; False counts towards an outage.
        """
        self._failures += 1
        if not is_fault and self._failures < OUTAGE_FAILURES:
            return
        if self._reason is None:
            self._probe_at = self._clock() + self._probe_every_s
            self._opened.clear()
        if self._reason != reason:
            self._reason = reason
            self._on_change(reason)
