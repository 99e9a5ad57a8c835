"""When a failed delivery is tried again, and when it is given up.

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
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from contracts.topics import DELIVERY_TIERS

WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0, 86400.0, 86400.0)
MAX_ATTEMPTS = len(WAITS_S) + 1
# Waits in memory, where order forbids the delay topics.
_HELD_BASE_S = 1.0
_HELD_MAX_S = 300.0
# A record that was not even tried waits for at least so long: its destination is down, or has enough to do.
_DOWN_S = 60.0
_BUSY_S = 5.0
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
    """Return how long a record waits that was not tried: half its age, so that it goes round less and less often."""
    return max(_DOWN_S if is_down else _BUSY_S, retry_after_s, age_s / 2)


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
