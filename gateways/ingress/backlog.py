"""Turns senders of a lane away while the workers are too far behind in it, where `gateway.overload.max_lag` says so.

A lag that cannot be read turns nobody away: Kafka or a permission may be at fault, and the log still takes events.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from contracts.errors import Backlogged, PenstockError
from contracts.logs import logger
from contracts.metrics import BACKLOG_LAG, BACKLOG_REFUSING, BACKLOG_UNKNOWN
from contracts.settings.overload import OverloadSettings
from producers.kafka_client import in_thread

# A reading counts for so many intervals.
_VALID_INTERVALS = 3
_LONGEST_RETRY_S = 60.0

_log = logger("gateway")


@dataclass
class _Lane:
    """A lane with a limit.

    Attributes:
        read_at_s: of the last reading, monotonic.
        is_behind: above the limit, and not yet below the mark where it is opened again.
    """

    name: str
    max_lag: int
    read_at_s: float = float("-inf")
    is_behind: bool = False
    is_known: bool = True


class Backlog:
    """Follows the lag of the workers' group; used by one event loop.

    Args:
        settings: the limits.
        topics: name of each lane's topic.
        read: the lag of a topic, None when the group never committed there; called in a thread.
        clock: monotonic seconds.

    Attributes:
        has_limits: there is anything to check.
    """

    def __init__(
        self,
        settings: OverloadSettings,
        topics: Mapping[str, str],
        read: Callable[[str], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = {topics[name]: _Lane(name, limit) for name, limit in settings.max_lag.items()}
        self._resume_share = settings.lag_resume_share
        self._interval_s = settings.lag_interval_s
        self._read = read
        self._clock = clock
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read; returns at once."""
        if self._lanes:
            self._following = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """End."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    def check(self, topic: str) -> None:
        """Let an event for a topic pass, or not.

        Raises:
            Backlogged: its lane is too far behind.
        """
        lane = self._lanes.get(topic)
        if lane is None or not lane.is_behind:
            return
        if self._clock() - lane.read_at_s > _VALID_INTERVALS * self._interval_s:
            return
        message = f"lane {lane.name} is more than {lane.max_lag} records behind"
        raise Backlogged(message, retry_after_s=min(max(1.0, 2 * self._interval_s), _LONGEST_RETRY_S))

    async def look(self) -> None:
        """Read the lag of every lane once."""
        for topic, lane in self._lanes.items():
            try:
                lag = await in_thread(self._read, topic)
            except PenstockError as error:
                self._note_unknown(lane, str(error))
            else:
                if lag is None:
                    self._note_unknown(lane, "the group never committed in this topic")
                else:
                    self._note(lane, lag)

    async def _follow(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._interval_s)

    def _note(self, lane: _Lane, lag: int) -> None:
        lane.read_at_s = self._clock()
        lane.is_known = True
        was_behind = lane.is_behind
        lane.is_behind = lag > (self._resume_share * lane.max_lag if was_behind else lane.max_lag)
        BACKLOG_LAG.labels(lane.name).set(lag)
        BACKLOG_UNKNOWN.labels(lane.name).set(0)
        BACKLOG_REFUSING.labels(lane.name).set(lane.is_behind)
        if lane.is_behind != was_behind:
            write = _log.warning if lane.is_behind else _log.info
            write("lane.closed" if lane.is_behind else "lane.opened", lane=lane.name, lag=lag, max_lag=lane.max_lag)

    def _note_unknown(self, lane: _Lane, why: str) -> None:
        if self._clock() - lane.read_at_s <= _VALID_INTERVALS * self._interval_s:
            # One failed request says nothing about the lag of a moment ago.
            return
        lane.is_behind = False
        BACKLOG_UNKNOWN.labels(lane.name).set(1)
        BACKLOG_REFUSING.labels(lane.name).set(0)
        if lane.is_known:
            lane.is_known = False
            _log.warning("lane.lag_unknown", lane=lane.name, error=why)
