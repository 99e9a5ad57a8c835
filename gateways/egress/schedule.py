"""When a failed delivery is tried again, when it is given up, and what is put off untried so that others have room.

    attempt  waits    after the first attempt
     1       -        0
     2       5 s      5 s
     3       5 m      5 m 5 s
     4       30 m     35 m 5 s
     5       2 h      2 h 35 m
     6       5 h      7 h 35 m
     7       10 h     17 h 35 m
     8       10 h     27 h 35 m
     9       24 h     51 h 35 m
    10       24 h     75 h 35 m, the last

Source: the schedule of the Standard Webhooks specification, ten attempts over 75 h 35 m (checked 2026-11); its steps of
14 and 20 h are 10 and 24 here, which needs fewer topics for the same sum.
No jitter: the wait of a tier is constant, which keeps its partitions in order; what came together is spread by the
limits of the door when it comes back.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from operator import itemgetter

from contracts.topics import DELIVERY_TIERS
from gateways.egress.ledger import Entry

WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0, 86400.0, 86400.0)
MAX_ATTEMPTS = len(WAITS_S) + 1
# Waits in memory, where order forbids the delay topics.
_HELD_BASE_S = 1.0
_HELD_MAX_S = 300.0
# A record that was not even tried waits for at least so long: its destination is down, or has enough to do.
_DOWN_S = 60.0
_BUSY_S = 5.0
_BUSY_MAX_S = 300.0
# Decision: a door that does well has what it holds out of hand sooner; what has waited for longer holds up others.
LATE_S = 60.0
# Longer waits than the longest tier make no difference.
MAX_S = 86_400.0


def wait_s(attempt: int, retry_after_s: float | None = None) -> float:
    """Return how long to wait after a failed attempt (1-based); the longer of schedule and Retry-After."""
    step = WAITS_S[min(attempt, len(WAITS_S)) - 1]
    return max(step, retry_after_s or 0.0)


def held_wait_s(attempt: int, retry_after_s: float | None = None) -> float:
    """Return the same for a record that waits in memory: 1 s, 2 s, 4 s and so on, 300 s at most."""
    step = min(_HELD_MAX_S, _HELD_BASE_S * 2.0 ** min(attempt - 1, 20))
    return max(step, min(retry_after_s or 0.0, _HELD_MAX_S))


def untried_wait_s(age_s: float, retry_after_s: float, *, is_down: bool) -> float:
    """Return how long a record waits that was not tried: half its age, so that it goes round less and less often.

    One whose destination is busy is back within minutes, or the slots would be idle before the backlog is gone.
    """
    if is_down:
        return max(_DOWN_S, retry_after_s, age_s / 2)
    return min(_BUSY_MAX_S, max(_BUSY_S, age_s / 2))


def tier_for(delay_s: float) -> str:
    """Return the shortest tier that waits long enough; the longest one for anything beyond."""
    return next((tier for tier, tier_s in DELIVERY_TIERS.items() if tier_s >= delay_s), list(DELIVERY_TIERS)[-1])


def patience_s(max_attempts: int) -> float:
    """Return the time from the first attempt to the last one, at most."""
    return sum(WAITS_S[: max_attempts - 1])


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Read Retry-After as a destination sends it: seconds, 0 to a day; None when it is absent or not readable.

    Args:
        text: seconds, or an HTTP date.
        now: in place of the clock, for tests.
    """
    if not text or len(text) > 64:  # noqa: PLR2004 - longer than any date
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    return None if math.isnan(seconds) else min(MAX_S, max(0.0, seconds))


def surplus(
    held: Iterable[Sequence[Sequence[Entry]]], late_s: float, room: int, size: Callable[[Entry], int]
) -> set[Entry]:
    """Return the entries in hand that owners must leave to each other's, so that more can come in.

    That is what is late of each owner beyond an even share; the first of each destination stays before the second of
    any. Whoever has something in hand keeps something, and so has his turn. Nothing goes that came a moment ago: while
    one late entry is left, all that is read in the place of what has gone would go as well, at the speed of Kafka.

    Args:
        held: what waits, by owner and destination, the oldest first.
        late_s: when what is late was queued, at the latest.
        room: that all may have together.
        size: how much of it an entry takes.
    """
    owners = [list(lanes) for lanes in held]
    late = [lanes for lanes in owners if min(lane[0].queued_at_s for lane in lanes) <= late_s]
    if not late:
        return set()
    share = _even_share([sum(size(one) for lane in lanes for one in lane) for lanes in owners], room)
    found = set[Entry]()
    for lanes in late:
        placed = ((place, one) for lane in lanes for place, one in enumerate(lane))
        ranked = [one for _, one in sorted(placed, key=itemgetter(0))]
        sums = accumulate(map(size, ranked))
        next(sums)
        found.update(
            one for one, total in zip(ranked[1:], sums, strict=True) if total > share and one.queued_at_s <= late_s
        )
    return found


def _even_share(wanted: Sequence[int], room: int) -> int:
    """Return the most that each may have; who wants less leaves the rest to the others."""
    for index, one in enumerate(sorted(wanted)):
        share = room // (len(wanted) - index)
        if one > share:
            return share
        room -= one
    return max(wanted, default=0)
