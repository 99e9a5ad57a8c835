"""Requests and tokens per minute, with Bedrock's rule: input + max_tokens are reserved, then settled on the usage.

Source: Amazon Bedrock user guide, "How tokens are counted" (checked 2026-11).
"""

import time
from collections.abc import Callable

_MINUTE_S = 60.0
_MAX_MODELS = 1000


class Bucket:
    """Holds at most a minute's worth and refills evenly."""

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._level = per_minute
        self._filled_at_s = clock()

    def take(self, amount: float) -> float:
        """Take an amount; return 0, or the seconds until there is enough, with nothing taken.

        More than a minute's worth never fits; the wait named is then that for a full bucket.
        """
        self._refill()
        if amount <= self._level:
            self._level -= amount
            return 0.0
        return (min(amount, self.per_minute) - self._level) / self.per_minute * _MINUTE_S or 1.0

    def give_back(self, amount: float) -> None:
        """Return what was reserved and not used; a negative amount is what was used beyond."""
        self._refill()
        self._level = min(self.per_minute, self._level + amount)

    def remaining(self) -> int:
        """How much could be taken now."""
        self._refill()
        return max(0, int(self._level))

    def _refill(self) -> None:
        now_s = self._clock()
        self._level = min(self.per_minute, self._level + (now_s - self._filled_at_s) * self.per_minute / _MINUTE_S)
        self._filled_at_s = now_s


class Quotas:
    """One pair of buckets per model; changed limits start with full buckets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def reserve(self, model: str, tokens: int, rpm: int | None, tpm: int | None) -> float:
        """Reserve one request and its tokens; return 0, or the seconds to wait, with nothing reserved."""
        wait_s = self._bucket(model, "requests", rpm).take(1) if rpm else 0.0
        if wait_s or not tpm:
            return wait_s
        wait_s = self._bucket(model, "tokens", tpm).take(tokens)
        if wait_s and rpm:
            self._bucket(model, "requests", rpm).give_back(1)
        return wait_s

    def settle(self, model: str, unused_tokens: float, tpm: int | None) -> None:
        """Give back the difference between what was reserved and what was used."""
        if tpm:
            self._bucket(model, "tokens", tpm).give_back(unused_tokens)

    def remaining(self, model: str, rpm: int | None, tpm: int | None) -> dict[str, int]:
        """Return what is left, by `requests` and `tokens`, of the limits that are set."""
        limits = (("requests", rpm), ("tokens", tpm))
        return {kind: self._bucket(model, kind, limit).remaining() for kind, limit in limits if limit}

    def _bucket(self, model: str, kind: str, limit: int) -> Bucket:
        bucket = self._buckets.get((model, kind))
        if bucket is None or bucket.per_minute != limit:
            if len(self._buckets) >= _MAX_MODELS:
                self._buckets.pop(next(iter(self._buckets)))
            bucket = self._buckets[model, kind] = Bucket(limit, self._clock)
        return bucket
