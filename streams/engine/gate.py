"""The gate in front of a model or a route: closed while nothing can succeed, so that a fault is waited out.

Closes at once on a fault (every event would fail until an operator acts), and after a run of failures without a
success in between on an outage. Refusals come at once and answers take their time, so while hundreds of calls are under
way, a run is an outage only when it is as long as their number; of a call for several events, all of them count there.
While closed, one probe at a time goes through, in the order of arrival; its success opens the gate. What was under way
before it closed neither opens nor closes it, but for the breaker of a route, which counts it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

# An outage is this many failures in a row; fewer may be bad luck of single events.
OUTAGE_FAILURES = 8
FIRST_PROBE_S = 1.0
MAX_PROBE_S = 30.0


class Pass:
    """The right to one call.

    Attributes:
        epoch: how often the gate had closed when it was given.
        is_probe: the gate is closed, and this call decides whether it opens.
    """

    __slots__ = ("epoch", "is_probe")

    def __init__(self, epoch: int, *, is_probe: bool = False) -> None:
        self.epoch = epoch
        self.is_probe = is_probe


class Gate:
    """Open, or closed for a reason.

    Args:
        on_change: told the reason when it closes and None when it opens.
        outage_failures: failures in a row that close it.

    Attributes:
        calling: calls under way behind it.
        cause: of the newest failure that closed it or kept it closed, in words.
    """

    def __init__(self, on_change: Callable[[str | None], None], outage_failures: int = OUTAGE_FAILURES) -> None:
        self._on_change = on_change
        self._outage_failures = outage_failures
        self.calling = 0
        self.cause = ""
        self._loop = asyncio.get_running_loop()
        self._failures = self._failed = 0
        self._reason: str | None = None
        self._open = Pass(0)
        self._opened_at = float("-inf")
        self._probe: Pass | None = None
        self._probe_at = 0.0
        self._probe_every_s = FIRST_PROBE_S
        # In the order of arrival; each leaves by itself, wherever it stands by then.
        self._waiters: OrderedDict[asyncio.Future[Pass], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reason(self) -> str | None:
        """Return why it is closed; None when open."""
        return self._reason

    def ticket(self) -> Pass | None:
        """Return a pass when the gate is open."""
        return self._open if self._reason is None else None

    def is_current(self, ticket: Pass) -> bool:
        """Tell whether a pass is still good: the gate has not closed since, or the pass is its probe."""
        return ticket is self._probe if ticket.is_probe else self._reason is None and ticket is self._open

    async def enter(self, limit_s: float) -> Pass | None:
        """Return a pass when it opens or when it is this one's turn to be the probe; None after `limit_s`."""
        if self._reason is None:
            return self._open
        waiter: asyncio.Future[Pass] = self._loop.create_future()
        self._waiters[waiter] = None
        self._pump()
        try:
            async with asyncio.timeout(limit_s):
                return await waiter
        except TimeoutError:
            return waiter.result() if waiter.done() and not waiter.cancelled() else None
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.left(waiter.result())
            raise
        finally:
            self._waiters.pop(waiter, None)

    def succeeded(self, ticket: Pass) -> None:
        """Note a success; that of a probe opens the gate."""
        if self._reason is None:
            if ticket is self._open:
                self._failures = self._failed = 0
        elif ticket is self._probe:
            self._open_up()

    def failed(self, reason: str, ticket: Pass, *, is_fault: bool, cause: str = "", is_echo: bool = False) -> None:
        """Note a failure.

        Args:
            reason: slug of the error.
            ticket: of the call that failed.
            is_fault: True for a fault that every call would meet, which closes at once; False counts towards an outage.
            cause: of it, in words.
            is_echo: the call was for several events, and another one has told of it.
        """
        self.cause = cause
        if self._reason is None and ticket is self._open:
            self._failures += not is_echo
            self._failed += 1
            if is_fault or (self._failures >= self._outage_failures and self._failed >= self.calling):
                self._close(reason)
        elif self._reason is not None and ticket is self._probe:
            self._next_probe()
            self._probe_every_s = min(2 * self._probe_every_s, MAX_PROBE_S)
            if self._reason != reason:
                self._reason = reason
                self._on_change(reason)

    def open(self) -> None:
        """Open it without a probe; for who knows better why it was closed."""
        if self._reason is not None:
            self._open_up()

    def left(self, ticket: Pass) -> None:
        """Note that a call ended without a verdict; more than once, or after one, does no harm."""
        if ticket is self._probe:
            self._next_probe()

    def _close(self, reason: str) -> None:
        if self._loop.time() - self._opened_at > MAX_PROBE_S:
            self._probe_every_s = FIRST_PROBE_S
        # Else it flaps: the probes go on as rarely as they were before.
        self._open = Pass(self._open.epoch + 1)
        self._reason = reason
        self._next_probe()
        self._on_change(reason)

    def _open_up(self) -> None:
        self._failures = self._failed = 0
        self._reason = self._probe = None
        self._opened_at = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(self._open)
        self._waiters.clear()
        self._on_change(None)

    def _next_probe(self) -> None:
        self._probe = None
        self._probe_at = self._loop.time() + self._probe_every_s
        self._pump()

    def _pump(self) -> None:
        """Let the next one probe when it is time; else come back then."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reason is None or self._probe is not None:
            return
        # Who was just given up has not left yet.
        waiter = next((waiter for waiter in self._waiters if not waiter.done()), None)
        if waiter is None:
            return
        if self._loop.time() < self._probe_at:
            self._timer = self._loop.call_at(self._probe_at, self._pump)
            return
        self._probe = Pass(self._open.epoch, is_probe=True)
        waiter.set_result(self._probe)
