"""THE decision: what becomes of an event after a failed attempt.

Reads: nothing. Writes: nothing; the pipeline carries the decision out. See: docs/adr/0006.

    configuration fault                    hold: wait at the gate, nothing is dead-lettered
    provider out (gate closed)             hold: wait at the gate
    throttled, transient, timeout          retry with jitter, inside deadline and attempts
    same, attempts used up                 dead letter, disposition exhausted
    poison (undecodable, 400, bad prompt)  dead letter at once, disposition poison
    content refused                        dead letter at once, disposition refused
    deadline passed, or cannot be met      expired, not paid for
"""

from dataclasses import dataclass
from typing import assert_never

from contracts.errors import (
    AttemptsExhausted,
    ConfigurationFault,
    ContentBlocked,
    DeadlineExceeded,
    NoRoute,
    PenstockError,
    Retryable,
)
from contracts.payloads import Disposition
from contracts.settings import Retry as RetrySettings
from streams.engine.retries import backoff_s


@dataclass(frozen=True)
class Retry:
    """Try again after `wait_s` seconds."""

    wait_s: float
    reason: str


@dataclass(frozen=True)
class Hold:
    """Wait until the model's gate opens; the attempt does not count."""

    reason: str


@dataclass(frozen=True)
class Bury:
    """End as a dead letter."""

    reason: str
    disposition: Disposition


@dataclass(frozen=True)
class Expire:
    """End as expired."""

    reason: str = DeadlineExceeded.reason


Decision = Retry | Hold | Bury | Expire


def decide(
    error: PenstockError, *, attempts: int, left_s: float, policy: RetrySettings, gate_reason: str | None
) -> Decision:
    """Decide after a failure.

    Args:
        error: what failed.
        attempts: calls made so far, this one included.
        left_s: seconds to the deadline.
        policy: the route's.
        gate_reason: why the model's gate is closed; None when it is open.
    """
    if isinstance(error, DeadlineExceeded) or left_s <= 0:
        return Expire()
    if isinstance(error, ConfigurationFault):
        return Hold(error.reason)
    if isinstance(error, Retryable):
        if gate_reason is not None:
            return Hold(gate_reason)
        return _retry(error, attempts, left_s, policy)
    return Bury(error.reason, disposition(error))


def _retry(error: Retryable, attempts: int, left_s: float, policy: RetrySettings) -> Decision:
    if attempts >= policy.max_attempts:
        return Bury(AttemptsExhausted.reason, "exhausted")
    if error.retry_after_s is not None and error.retry_after_s >= left_s:
        # The provider will not take it before the deadline: not worth holding the key for.
        return Expire()
    wait_s = backoff_s(attempts, policy.base_s, min(policy.max_s, left_s), error.retry_after_s)
    return Retry(min(wait_s, left_s), error.reason)


def disposition(error: PenstockError) -> Disposition:
    """Return what kind of end an error makes."""
    if isinstance(error, NoRoute):
        return "unroutable"
    if isinstance(error, ContentBlocked):
        return "refused"
    if isinstance(error, AttemptsExhausted):
        return "exhausted"
    return "poison"


def outcome_label(decision: Bury | Expire) -> str:
    """Return the `outcome` metric label of a terminal decision."""
    match decision:
        case Bury():
            return "dead_letter"
        case Expire():
            return "expired"
        case _:
            assert_never(decision)
