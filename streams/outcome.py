"""THE decision: what becomes of an event after a failed attempt.

Reads: nothing. Writes: nothing; the pipeline carries the decision out. See: docs/adr/0006.

    configuration fault                    hold: wait at the gate, nothing is dead-lettered
    provider out (gate closed)             hold: wait at the gate
    throttled, transient, timeout          retry with jitter, inside deadline, age and the attempts of its class
    same, attempts or age used up          dead letter, disposition exhausted
    poison (undecodable, 400, bad prompt)  dead letter at once, disposition poison
    content refused                        dead letter at once, disposition refused
    deadline passed, or cannot be met      expired, nothing more is called
"""

from dataclasses import dataclass
from typing import NamedTuple, assert_never

from contracts.errors import (
    AttemptsExhausted,
    Cancelled,
    CertificateRefused,
    ConfigurationFault,
    ContentBlocked,
    DeadlineExceeded,
    NoRoute,
    PenstockError,
    Retryable,
    Throttled,
)
from contracts.payloads import Disposition
from contracts.settings import Retry as RetrySettings
from streams.engine.retries import backoff_s

_POSSIBLY_BILLED_ATTEMPTS = 3
# With the waits of the defaults these are ten minutes: the deadline comes first.
_THROTTLED_ATTEMPTS = 50


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
    error: PenstockError,
    *,
    failures: int,
    age_s: float,
    left_s: float,
    policy: RetrySettings,
    gate_reason: str | None,
) -> Decision:
    """Decide after a failure.

    Args:
        error: what failed.
        failures: of this class so far, this one included.
        age_s: seconds since the event was accepted.
        left_s: seconds to the deadline.
        policy: the route's.
        gate_reason: why the model's gate is closed; None when it is open.
    """
    if isinstance(error, DeadlineExceeded) or left_s <= 0:
        return Expire()
    if isinstance(error, CertificateRefused) and gate_reason is None:
        # One machine of several may have it: the next one is asked, and the gate closes only when all of them refuse.
        return Retry(min(policy.base_s, left_s), error.reason)
    if isinstance(error, ConfigurationFault):
        return Hold(error.reason)
    if isinstance(error, Retryable):
        if gate_reason is not None:
            return Hold(gate_reason)
        return _retry(error, failures, age_s, left_s, policy)
    return Bury(error.reason, disposition(error))


def failure_class(error: PenstockError) -> str:
    """Return under which class of the retry policy a failure is counted."""
    if isinstance(error, Throttled):
        return "throttled"
    if getattr(error, "possibly_billed", False):
        return "timeout"
    return "transient"


class Patience(NamedTuple):
    """What the policy says about one class of failures."""

    max_attempts: int
    base_s: float
    max_s: float


def patience(policy: RetrySettings, kind: str) -> Patience:
    """Return how patient a policy is with a class of failures."""
    most = policy.max_attempts
    if kind == "transient":
        return Patience(most, policy.base_s, policy.max_s)
    of_class = policy.throttled if kind == "throttled" else policy.timeout
    if kind == "timeout":
        # Each of these may cost a full call, so fewer are made unless somebody asks for more.
        usual = min(most, _POSSIBLY_BILLED_ATTEMPTS)
    else:
        # These cost nothing, and say nothing against the event: where half of the calls are throttled, one event in
        # thirty meets five in a row.
        usual = most if "max_attempts" in policy.model_fields_set else _THROTTLED_ATTEMPTS
    return Patience(of_class.max_attempts or usual, of_class.base_s or policy.base_s, of_class.max_s or policy.max_s)


def _retry(error: Retryable, failures: int, age_s: float, left_s: float, policy: RetrySettings) -> Decision:
    most, base_s, max_s = patience(policy, failure_class(error))
    if failures >= most:
        return Bury(AttemptsExhausted.reason, "exhausted")
    if error.retry_after_s is not None and error.retry_after_s >= left_s:
        # The provider will not take it before the deadline: not worth holding the key for.
        return Expire()
    wait_s = min(backoff_s(failures, base_s, min(max_s, left_s), error.retry_after_s), left_s)
    if policy.max_age_s is not None and age_s + wait_s > policy.max_age_s:
        return Bury(AttemptsExhausted.reason, "exhausted")
    return Retry(wait_s, error.reason)


def disposition(error: PenstockError) -> Disposition:
    """Return what kind of end an error makes."""
    if isinstance(error, NoRoute):
        return "unroutable"
    if isinstance(error, ContentBlocked):
        return "refused"
    if isinstance(error, AttemptsExhausted):
        return "exhausted"
    if isinstance(error, Cancelled):
        return "operator"
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
