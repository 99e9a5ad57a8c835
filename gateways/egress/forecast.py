"""Foresees that an event will not have its outcome in time, from how the latest events of its kind fared.

The rule is conservative, because waiting in vain costs little and sending a caller away that would have been answered
costs a round trip: of the events of one lane and type that ended within the last minute, or are still open, at least
`ENOUGH` took longer than what is left now, and not one was faster. So nothing is foreseen after a start, one quick
outcome ends it, and because the events of callers who were sent away go on, that outcome comes as soon as it can.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

ENOUGH = 5
WINDOW_S = 60.0
_SAMPLES = 64
_MAX_KINDS = 256
_MAX_OPEN = 8192
# Still open after this: its outcome went past us, or nobody works at all.
_OPEN_LIMIT_S = 900.0
_MIN_WAIT_S = 1.0
_MAX_WAIT_S = 60.0
_USUAL_WAIT_S = 2.0

Kind = tuple[str, str]


class _Open(NamedTuple):
    kind: Kind
    since_s: float


class Forecast:
    """What this gateway has seen of recent events; belongs to one event loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ended: OrderedDict[Kind, deque[tuple[float, float]]] = OrderedDict()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def __contains__(self, result_id: str) -> bool:
        """Tell whether an outcome would tell us something; safe to ask from any thread."""
        return result_id in self._open

    def begin(self, result_id: str, kind: Kind) -> None:
        """Note that an event is being put on the log."""
        self._open.setdefault(result_id, _Open(kind, self._clock()))
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)

    def forget(self, result_id: str) -> None:
        """Take that back: it was not accepted."""
        self._open.pop(result_id, None)

    def end(self, result_id: str) -> None:
        """Note that an event has its outcome."""
        begun = self._open.pop(result_id, None)
        if begun is None:
            return
        now_s = self._clock()
        samples = self._ended.setdefault(begun.kind, deque(maxlen=_SAMPLES))
        self._ended.move_to_end(begun.kind)
        samples.append((now_s, now_s - begun.since_s))
        while len(self._ended) > _MAX_KINDS:
            self._ended.popitem(last=False)

    def will_miss(self, kind: Kind, left_s: float) -> bool:
        """Tell whether an event that is on the log now will probably have no outcome within `left_s`."""
        recent = self._recent(kind)
        if any(duration_s <= left_s for duration_s in recent):
            return False
        return len(recent) + self._overdue(kind, left_s) >= ENOUGH

    def retry_after_s(self, kind: Kind, waited_s: float) -> float:
        """Return when it makes sense to ask for the result of an event that is so old already."""
        recent = sorted(self._recent(kind))
        usual_s = recent[len(recent) // 2] - waited_s if recent else _USUAL_WAIT_S
        return min(max(usual_s, _MIN_WAIT_S), _MAX_WAIT_S)

    def _recent(self, kind: Kind) -> list[float]:
        since_s = self._clock() - WINDOW_S
        return [duration_s for ended_s, duration_s in self._ended.get(kind, ()) if ended_s >= since_s]

    def _overdue(self, kind: Kind, left_s: float) -> int:
        """Count open events that are older than what is left; the oldest come first."""
        now_s = self._clock()
        while self._open and now_s - next(iter(self._open.values())).since_s > _OPEN_LIMIT_S:
            self._open.popitem(last=False)
        count = 0
        for open_kind, since_s in self._open.values():
            if now_s - since_s <= left_s or count >= ENOUGH:
                break
            count += open_kind == kind
        return count
