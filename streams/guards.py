"""Makes what stands in front of the calls of each route, and tells metrics and log when a route pauses.

Reads: nothing. Writes: nothing.
"""

import asyncio
from collections.abc import Callable

from contracts.logs import logger
from contracts.metrics import ROUTE_PAUSED
from contracts.settings import ModelSettings, RouteSettings, Settings
from streams.engine.breaker import Breaker
from streams.engine.gate import Gate
from streams.engine.retries import RetryBudget
from streams.engine.window import SlidingCounts
from streams.failures import Guard

_NEVER = 1.0


class Guards:
    """One gate and one retry budget per model, one breaker per route.

    Args:
        settings: the whole configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models: dict[str, tuple[Gate, RetryBudget]] = {}
        self._guards: dict[str, Guard] = {}
        self._clock = asyncio.get_running_loop().time
        self._log = logger("worker")

    def of(self, route: RouteSettings) -> Guard:
        """Return the guard of a route."""
        if route.name not in self._guards:
            gate, budget = self._of_model(route.model)
            self._guards[route.name] = Guard(route, gate, self._breaker(route), budget)
        return self._guards[route.name]

    def _of_model(self, alias: str) -> tuple[Gate, RetryBudget]:
        if alias not in self._models:
            model: ModelSettings = self._settings.models[alias]
            limit = model.retry_budget
            gate = Gate(self._changed("model", alias))
            self._models[alias] = gate, RetryBudget(limit.share, limit.min_per_s, limit.window_s, self._clock)
        return self._models[alias]

    def _breaker(self, route: RouteSettings) -> Breaker:
        limit = route.dead_letter_limit
        ratio = None if limit.ratio == _NEVER else limit.ratio
        gate = Gate(self._changed("route", route.name))
        return Breaker(gate, SlidingCounts(limit.window_s, self._clock), ratio, limit.min_events)

    def _changed(self, kind: str, name: str) -> Callable[[str | None], None]:
        def changed(reason: str | None) -> None:
            self._show()
            if reason is None:
                self._log.warning(f"{kind}.resumed", **{kind: name})
            else:
                detail = "calls wait; a probe is made from time to time"
                cause = {"error": self._models[name][0].cause} if kind == "model" else {}
                self._log.error(f"{kind}.paused", **{kind: name}, reason=reason, **cause, detail=detail)

        return changed

    def _show(self) -> None:
        ROUTE_PAUSED.clear()
        for name, guard in self._guards.items():
            for gate in (guard.gate, guard.breaker.gate):
                if gate.reason is not None:
                    ROUTE_PAUSED.labels(name, gate.reason).set(1)
