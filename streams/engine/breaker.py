"""The breaker of a route: closes its gate when most of its events would end as dead letters.

A schema that the model refuses, a broken template or a limit set too low ends every event alike; without this the
topic would be drained into dead letters. Precedent: DlqLimit.max_invalid_ratio of Sentry's Arroyo.
"""

from streams.engine.gate import Gate, Pass
from streams.engine.window import SlidingCounts

REASON = "dead_letter_ratio"


class Breaker:
    """Watches how a route's events end.

    While its gate is closed, one event at a time is tried. A success opens it. A probe that would be a dead letter
    becomes one, so that a backlog of nothing but poison goes on, slowly, and the next probe takes another event.

    A refusal comes at once and an answer takes its time: with hundreds in flight, the few that are refused would all be
    there before the first answer. So once something is answered, calls under way count as well as ends; and where they
    have closed it before, the answers to what was under way open it again.

    Args:
        gate: of the route.
        counts: answered events and dead letters over the window.
        ratio: dead letters of all ends, above which it closes; None = never.
        min_events: ends in the window before it judges.

    Attributes:
        calling: the route's calls under way.
    """

    def __init__(self, gate: Gate, counts: SlidingCounts, ratio: float | None, min_events: int) -> None:
        self.gate = gate
        self.calling = 0
        self._counts = counts
        self._ratio = ratio
        self._min_events = min_events

    def answered(self, ticket: Pass) -> None:
        """Note an event that has its answer."""
        was_closed = self.gate.reason is not None
        self.gate.succeeded(ticket)
        if was_closed and self.gate.reason is None:
            # What happened before says nothing any more.
            self._counts.clear()
        self._counts.add(first=1)
        if was_closed and self.gate.reason == REASON and self._ratio is not None:
            good, dead = self._counts.sums()
            # Only what has ended: to open on what is hoped for would let go of everything that waits.
            if dead <= self._ratio * (good + dead):
                self.gate.open()

    def may_bury(self, ticket: Pass) -> bool:
        """Tell whether an event may end as a dead letter now; False = it waits at the gate."""
        if self._ratio is None:
            return True
        if self.gate.reason is None:
            self._counts.add(second=1)
            if not self._is_exceeded(self._ratio):
                return True
            self.gate.failed(REASON, ticket, is_fault=True)
            # A straggler's failure closes nothing.
            return self.gate.reason is None
        if ticket.is_probe:
            self.gate.failed(REASON, ticket, is_fault=True)
        return ticket.is_probe

    def _is_exceeded(self, ratio: float) -> bool:
        good, dead = self._counts.sums()
        # Without any answer it may be that there will never be one, and nothing is put off.
        open_ends = self.calling if good else 0
        return good + dead >= self._min_events and dead > ratio * (good + dead + open_ends)
