"""When an endpoint counts as failing, and when it is disabled; the state outlives restarts on a board.

    active --failure--> failing --success--> active
    failing, for `disable_after_s` and MIN_FAILURES failures in this process --> disabled (failing)
    any --410--> disabled (gone)
    disabled --operator--> active                  `penstock callbacks enable`

Only changes are written: one record when an outage begins, one when it ends.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from contracts.envelope import format_time, parse_time
from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.payloads import EndpointState, EndpointStatus
from gateways.egress.base import Board

# Decision: two failures of a sleepy endpoint, days apart, are not days of only failures.
MIN_FAILURES = 10
# Kafka takes milliseconds for it, and up to `producer.delivery_timeout_s` while its brokers are away.
_KEPT_WITHIN_S = 1.0

_log = logger("egress")


class MemoryBoard:
    """A board that forgets with its process: for tests, and where no other is given."""

    def __init__(self) -> None:
        self._states: dict[str, EndpointState] = {}

    def get(self, name: str) -> EndpointState | None:
        """Return the newest state."""
        return self._states.get(name)

    async def put(self, state: EndpointState) -> None:
        """Keep a state."""
        self._states[state.name] = state


class Endpoint:
    """The state of one endpoint.

    Args:
        name: of the door.
        board: where it is kept.
        disable_after_s: only failures for that long disable it.
        now: aware clock.
    """

    def __init__(self, name: str, board: Board, disable_after_s: float, now: Callable[[], datetime]) -> None:
        self._name = name
        self._board = board
        self._disable_after_s = disable_after_s
        self._now = now
        self._failures = 0
        # Held, or a task that nobody waits for any more may be gone before it has written.
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def disabled(self) -> EndpointState | None:
        """Return the state when it is disabled, with the reason; None when callbacks may be sent."""
        state = self._board.get(self._name)
        return state if state is not None and state.status == "disabled" else None

    async def succeeded(self) -> None:
        """Note that a callback was taken."""
        self._failures = 0
        state = self._board.get(self._name)
        if state is not None and state.status == "failing":
            await self._write(self._state("active", "delivered"))

    async def failed(self, reason: str) -> None:
        """Note a failure; after days of nothing else the endpoint is disabled."""
        self._failures += 1
        state = self._board.get(self._name)
        if state is None or state.status == "active":
            await self._write(self._state("failing", reason))
        elif state.status == "failing" and self._failures >= MIN_FAILURES and self._is_overdue(state):
            _log.error("callback.endpoint_disabled", door=self._name, reason="failing", detail=reason)
            await self._write(self._state("disabled", "failing"))

    async def gone(self) -> None:
        """Note that the receiver wants no more callbacks (410)."""
        if self.disabled is None:
            _log.error("callback.endpoint_disabled", door=self._name, reason="gone")
            await self._write(self._state("disabled", "gone"))

    def _is_overdue(self, state: EndpointState) -> bool:
        since = parse_time(state.since)
        return since is not None and (self._now() - since).total_seconds() >= self._disable_after_s

    def _state(self, status: EndpointStatus, reason: str) -> EndpointState:
        return EndpointState(name=self._name, status=status, reason=reason, since=format_time(self._now()), by="egress")

    async def _write(self, state: EndpointState) -> None:
        """Write a state; it goes on being written where that takes long: the callback's own time is not spent on it."""
        writing = asyncio.ensure_future(self._keep(state))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.wait({writing}, timeout=_KEPT_WITHIN_S)

    async def _keep(self, state: EndpointState) -> None:
        try:
            await self._board.put(state)
        except LogUnavailable as error:
            # The state counts in this process; after a restart it is learned again.
            _log.warning("callback.state_not_kept", door=self._name, status=state.status, error=str(error))
