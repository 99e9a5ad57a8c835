"""Spaces attempts evenly, so that an endpoint never gets more than its rate. Pure but for the sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable


class Pace:
    """Hands out turns.

    Args:
        max_per_s: turns a second; no limit when None.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        max_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._interval_s = 1 / max_per_s if max_per_s else 0.0
        self._clock = clock
        self._sleep = sleep
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for the next turn; turns of callers that give up are lost, which errs on the slow side."""
        if not self._interval_s:
            return
        now_s = self._clock()
        mine_s = max(self._next_s, now_s)
        self._next_s = mine_s + self._interval_s
        if mine_s > now_s:
            await self._sleep(mine_s - now_s)
