"""Finds out why a signature is refused, for the log and the metric; within a budget, since strangers cause the work."""

import time
from collections.abc import Callable
from datetime import datetime

from contracts.errors import PenstockError
from gateways.ingress.buckets import Bucket
from gateways.ingress.variants import Variant, variants
from gateways.ingress.verifying import Incoming, Verified, Verifier

# Measured: a body of this size takes 4 ms of CPU to try in all its forms; at the rate below that is 1 % of a core.
MAX_BODY_BYTES = 16 * 1024
_PER_S = 2.0
_BURST = 20
# Of the whole process, however many sources are tried.
_BUDGET = Bucket(_PER_S, _BURST, time.monotonic())
# Reasons behind which another form of the request may be found.
_UNEXPLAINED = frozenset({"wrong_signature", "malformed"})


class Explainer:
    """Explains the refusals of one source; not thread-safe, one event loop uses it.

    Args:
        clock: monotonic seconds.
        budget: explanations; that of the process when absent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, budget: Bucket | None = None) -> None:
        self._clock = clock
        self._budget = _BUDGET if budget is None else budget

    def explain(self, verifier: Verifier, request: Incoming, now: datetime, detail: str) -> str:
        """Return a reason code that says more than the verifier's, where there is one and the budget allows to look."""
        if detail not in _UNEXPLAINED or len(request.body) > MAX_BODY_BYTES:
            return detail
        now_s = self._clock()
        if self._budget.wait_s(now_s):
            return detail
        self._budget.spend(now_s)
        found = fitting(verifier, request, now)
        return found[0].detail if found else detail


def fitting(verifier: Verifier, request: Incoming, now: datetime) -> tuple[Variant, Verified] | None:
    """Return the form of a request that the signature fits, other than its own; None when there is none."""
    for variant in variants(request):
        try:
            return variant, verifier.verify(variant.request, now)
        except PenstockError:
            continue
    return None
