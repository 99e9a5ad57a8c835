"""Decides which call fails and how long it takes, reproducibly."""

import random

from streams.fmstub.faults import KINDS
from streams.fmstub.knobs import Knobs


class FaultPlan:
    """Decides the fate of calls, reproducibly for one seed and one order of calls."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._failed: dict[str, int] = {}

    def reset(self) -> None:
        """Forget which scripted failures have happened."""
        self._failed.clear()

    def latency_s(self, knobs: Knobs) -> float:
        """Draw the time to the first token."""
        if not knobs.latency_sigma:
            return knobs.latency_s
        return knobs.latency_s * self._dice.lognormvariate(0.0, knobs.latency_sigma)

    def choose(self, knobs: Knobs, model: str, prompt: str) -> str | None:
        """Return how this call fails; None when it does not.

        In this order: the model id (`error.throttling`), scripted failures by marker, error rates.
        """
        _, is_error, kind = model.partition("error.")
        if is_error and kind in KINDS:
            return kind
        scripted = self._scripted(knobs, prompt)
        if scripted is not None or not knobs.error_rates:
            return scripted
        draw = self._dice.random()
        for name, rate in knobs.error_rates.items():
            if draw < rate:
                return name
            draw -= rate
        return None

    def _scripted(self, knobs: Knobs, prompt: str) -> str | None:
        for marker, plan in knobs.fail_first.items():
            times, kind = (plan, "unavailable") if isinstance(plan, int) else (plan.times, plan.kind)
            if marker in prompt and self._failed.get(marker, 0) < times:
                self._failed[marker] = self._failed.get(marker, 0) + 1
                return kind
        return None
