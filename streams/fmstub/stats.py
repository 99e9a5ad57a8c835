"""Counts what the stub has served, per event and in all, in bounded memory."""

from collections import Counter, OrderedDict
from typing import Any

MAX_EVENTS = 200_000
MAX_MODELS = 200


class Stats:
    """What `GET /_stub/stats` shows.

    A call is `billed` when the stub has worked out its answer: a client that has hung up, or a stream that was cut,
    pays all the same, as with a real provider.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.billed = 0
        self.errors: Counter[str] = Counter()
        self.by_operation: Counter[str] = Counter()
        self.by_model: Counter[str] = Counter()
        self.calls_per_event: OrderedDict[str, int] = OrderedDict()
        self.billed_per_event: OrderedDict[str, int] = OrderedDict()
        self.events_forgotten = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.in_flight = 0
        self.peak_in_flight = 0

    def begin(self, operation: str, model: str, event_id: str) -> None:
        """Count a call that has arrived."""
        self.calls += 1
        self.by_operation[operation] += 1
        self.by_model[model if model in self.by_model or len(self.by_model) < MAX_MODELS else "other"] += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._count(self.calls_per_event, event_id)

    def end(self) -> None:
        """Count a call that is over, however it ended."""
        self.in_flight -= 1

    def bill(self, event_id: str, input_tokens: int, output_tokens: int) -> None:
        """Count a call that is paid for."""
        self.billed += 1
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self._count(self.billed_per_event, event_id)

    def _count(self, counts: OrderedDict[str, int], event_id: str) -> None:
        if not event_id:
            return
        counts[event_id] = counts.get(event_id, 0) + 1
        counts.move_to_end(event_id)
        if len(counts) > MAX_EVENTS:
            counts.popitem(last=False)
            self.events_forgotten += 1

    def snapshot(self) -> dict[str, Any]:
        """Return everything as JSON can carry it."""
        return {
            "calls": self.calls,
            "billed": self.billed,
            "errors": dict(self.errors),
            "by_operation": dict(self.by_operation),
            "by_model": dict(self.by_model),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "calls_per_event": dict(self.calls_per_event),
            "billed_per_event": dict(self.billed_per_event),
            "events_forgotten": self.events_forgotten,
        }
