"""How long a failed attempt waits.

Full jitter: a wait is drawn between zero and min(max_s, base_s * 2^(attempt-1)); a provider's Retry-After is a lower
bound. Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    base_s 0.5, max_s 30:  attempt 1 2 3 4 5 6 7   upper bound 0.5 1 2 4 8 16 30 s
"""

import random
from collections.abc import Callable


def backoff_s(
    attempt: int,
    base_s: float,
    max_s: float,
    retry_after_s: float | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return how long to wait after a failed attempt (1-based), seconds."""
    # The exponent is capped so that a large attempt number cannot overflow a float.
    wait_s = uniform(0.0, min(max_s, base_s * 2.0 ** min(attempt - 1, 60)))
    if retry_after_s is None:
        return wait_s
    # Everybody was told the same instant: spread over another base_s so that not all come back at once.
    return retry_after_s + uniform(0.0, base_s)
