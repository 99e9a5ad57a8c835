"""Reads Retry-After as a destination sends it; garbage counts as not sent."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Longer waits than the longest tier make no difference.
MAX_S = 86_400.0


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Return the wait in seconds, 0 to a day; None when it is absent or not readable.

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
