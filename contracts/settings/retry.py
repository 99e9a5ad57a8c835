"""What a route does about failures: how often it tries, where it waits, when it stops."""

from typing import Literal

from pydantic import Field

from contracts.settings.section import Seconds, Section


class RetryClass(Section):
    """What differs for one class of failures; what is absent is as in `retry`."""

    max_attempts: int | None = Field(default=None, ge=1, le=1000)
    """Failures of this class, after which the event is dead-lettered."""
    base_s: Seconds | None = None
    """Upper bound of the first wait."""
    max_s: Seconds | None = None
    """Upper bound of any wait."""


class Retry(Section):
    """How often and how patiently one event's call is tried; always inside the deadline.

    Three classes of failures are counted apart: `throttled` (the provider says slow down), `timeout` (no answer, or
    any other failure of a call that may have been billed) and the rest. What cannot pass by itself is not retried.
    """

    max_attempts: int = Field(default=5, ge=1, le=100)
    """Failures of one class, after which the event is dead-lettered; 1 = no retry."""
    base_s: Seconds = 0.5
    """Upper bound of the first wait; waits are drawn between zero and min(max_s, base_s * 2^n) (full jitter)."""
    max_s: Seconds = 30.0
    """Upper bound of any wait; a provider's Retry-After is honoured beyond it."""
    max_age_s: Seconds | None = None
    """No retry begins later than this after acceptance: the event is dead-lettered. The deadline alone when absent.
    What waits for a paused model or route is held beyond it."""
    throttled: RetryClass = RetryClass()
    """Throttling. Unless given, `max_attempts` is 50, or that of `retry` where one is given: it costs nothing."""
    timeout: RetryClass = RetryClass()
    """Failures that may have been billed. Unless given, `max_attempts` is 3 at most: each may cost a full call."""
    long_waits: Literal["auto", "hold", "topic"] = "auto"
    """Where an event waits for longer than `park_after_s`. `hold`: in the worker, its key waits with it; a restart
    begins its attempts anew. `topic`: on the retry topic, attempts and costs survive a restart, and LATER EVENTS OF ITS
    KEY OVERTAKE IT. `auto`: `topic` for routes with `order: none`, else `hold`."""
    park_after_s: Seconds = 30.0
    """The longest wait in the worker, where long waits go to the retry topic."""


class RetryBudgetSettings(Section):
    """Limit of retries to one model, per worker; an event that finds it used up waits longer, and is not lost."""

    share: float = Field(default=0.3, ge=0, le=10)
    """Retries per first call; 0.3 lets one call in five fail for ever without delay, and bounds an overload to 1.3
    times the load."""
    min_per_s: float = Field(default=10.0, ge=0, le=10_000)
    """Retries a second that are always allowed."""
    window_s: Seconds = 10.0
    """Over which both are measured."""


class DeadLetterLimit(Section):
    """Pauses a route when most of its events would end as dead letters.

    Counted are all ends but those of records that are no events and of answers that a batch API has cut off, and, once
    something was answered, the calls under way: refusals come at once and answers take their time. While paused, one
    event at a time is tried, every second at first and every 30 s at last; a success opens the route, a probe that
    fails is dead-lettered. To let a backlog of poison run off at full speed, set `ratio` to 1.
    """

    ratio: float = Field(default=0.5, gt=0, le=1)
    """Share of the ends above which the route pauses; 1 = never."""
    min_events: int = Field(default=20, ge=1, le=1_000_000)
    """Ends in the window before it judges."""
    window_s: Seconds = 60.0
    """How long an end counts."""
