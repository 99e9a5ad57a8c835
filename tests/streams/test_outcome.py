"""THE decision: every error kind has one, and a new kind without one fails here."""

import inspect

import pytest

from contracts import errors
from contracts.errors import PenstockError
from contracts.settings import Retry as Policy
from streams.failures import InternalError
from streams.outcome import Bury, Decision, Expire, Hold, Retry, decide, disposition, outcome_label

POLICY = Policy(max_attempts=3, base_s=1, max_s=10)
RETRY, AGAIN, HOLD, EXPIRE = "retry", "again", "hold", "expire"
# What becomes of an event after its first attempt failed so, with time left and the gate open.
DECISIONS: dict[type[PenstockError], str] = {
    errors.Throttled: RETRY,
    errors.ProviderUnavailable: RETRY,
    errors.ProviderTimeout: RETRY,
    errors.LogUnavailable: RETRY,
    errors.Retryable: RETRY,
    errors.AccessDenied: HOLD,
    errors.ModelNotFound: HOLD,
    errors.QuotaExhausted: HOLD,
    errors.UnknownHost: HOLD,
    errors.CertificateRefused: AGAIN,
    errors.ConfigurationFault: HOLD,
    errors.DeadlineExceeded: EXPIRE,
    errors.Undecodable: "poison",
    errors.PromptFailed: "poison",
    errors.InvalidRequest: "poison",
    errors.ContextTooLong: "poison",
    errors.OutputInvalid: "poison",
    errors.OutputTruncated: "poison",
    errors.TooLarge: "poison",
    errors.Terminal: "poison",
    errors.ContentBlocked: "refused",
    errors.NoRoute: "unroutable",
    errors.AttemptsExhausted: "exhausted",
    errors.Cancelled: "operator",
    InternalError: "poison",
}
# Belong to the doors and the start of a process; none of them comes out of a call to a model.
ELSEWHERE = {
    errors.PenstockError, errors.ConfigError, errors.Rejected, errors.BadSignature, errors.Unauthenticated,
    errors.Forbidden, errors.UnknownSource, errors.UnknownResult, errors.IdReused, errors.MethodNotAllowed,
    errors.BodyTimeout, errors.UnsupportedMedia, errors.InvalidPayload, errors.Busy, errors.RateLimited,
    errors.Backlogged,
}  # fmt: skip


def decided(
    error: PenstockError,
    failures: int = 1,
    left_s: float = 300,
    gate_reason: str | None = None,
    policy: Policy = POLICY,
    age_s: float = 0,
) -> Decision:
    return decide(error, failures=failures, age_s=age_s, left_s=left_s, policy=policy, gate_reason=gate_reason)


def test_every_kind_of_error_has_a_decision() -> None:
    kinds = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PenstockError)}

    assert kinds - ELSEWHERE - set(DECISIONS) == set()


@pytest.mark.parametrize("kind", DECISIONS, ids=lambda kind: kind.__name__)
def test_the_decision_is_the_one_in_the_table(kind: type[PenstockError]) -> None:
    wanted = DECISIONS[kind]
    decision = decided(kind("failed"))
    match decision:
        case Retry():
            assert wanted in {RETRY, AGAIN}
        case Hold():
            assert (wanted, decision.reason) == (HOLD, kind.reason)
        case Expire():
            assert wanted == EXPIRE
        case Bury():
            assert decision == Bury(kind.reason, disposition(kind("failed")))
            assert decision.disposition == wanted


@pytest.mark.parametrize("kind", DECISIONS, ids=lambda kind: kind.__name__)
def test_after_the_deadline_everything_expires(kind: type[PenstockError]) -> None:
    assert decided(kind("failed"), left_s=0) == Expire()


@pytest.mark.parametrize("kind", [kind for kind, wanted in DECISIONS.items() if wanted == RETRY])
def test_the_last_attempt_ends_as_exhausted(kind: type[PenstockError]) -> None:
    assert decided(kind("failed"), failures=3) == Bury("attempts_exhausted", "exhausted")


@pytest.mark.parametrize("kind", [kind for kind, wanted in DECISIONS.items() if wanted == RETRY])
def test_behind_a_closed_gate_a_transient_failure_holds_even_on_the_last_attempt(kind: type[PenstockError]) -> None:
    assert decided(kind("failed"), failures=99, gate_reason="provider_unavailable") == Hold("provider_unavailable")


def test_poison_is_buried_behind_a_closed_gate_too() -> None:
    assert isinstance(decided(errors.InvalidRequest("400"), gate_reason="access_denied"), Bury)


def test_a_configuration_fault_holds_whatever_the_attempts() -> None:
    assert decided(errors.AccessDenied("403"), failures=99) == Hold("access_denied")


def test_a_refused_certificate_is_tried_again_whatever_the_attempts_until_the_gate_is_closed() -> None:
    assert decided(errors.CertificateRefused("expired"), failures=99, left_s=0.1) == Retry(0.1, "certificate_refused")
    assert decided(errors.CertificateRefused("expired"), gate_reason="certificate_refused") == Hold(
        "certificate_refused"
    )


def test_a_wait_is_drawn_inside_the_policy() -> None:
    waits = [decision.wait_s for _ in range(200) if isinstance(decision := decided(errors.Throttled("429")), Retry)]

    assert len(waits) == 200
    assert 0 <= min(waits) < max(waits) <= 1


def test_a_wait_that_the_provider_asks_for_is_kept() -> None:
    decision = decided(errors.Throttled("429", retry_after_s=7))

    assert isinstance(decision, Retry)
    assert 7 <= decision.wait_s <= 8


def test_a_wait_that_ends_behind_the_deadline_is_not_begun() -> None:
    assert decided(errors.Throttled("429", retry_after_s=60), left_s=59) == Expire()


def left_after(error: PenstockError, policy: Policy) -> int:
    """Return after how many failures an event is buried."""
    return next(n for n in range(1, 1000) if isinstance(decided(error, failures=n, policy=policy), Bury))


def test_each_class_of_failures_has_its_own_attempts() -> None:
    policy = Policy.model_validate(
        {"max_attempts": 4, "throttled": {"max_attempts": 50}, "timeout": {"max_attempts": 2}}
    )

    assert left_after(errors.Throttled("429"), policy) == 50
    assert left_after(errors.ProviderTimeout("slow"), policy) == 2
    assert left_after(errors.ProviderUnavailable("503"), policy) == 4
    assert left_after(errors.ProviderUnavailable("reset", possibly_billed=True), policy) == 2


def test_a_throttle_costs_nothing_and_is_borne_for_longer_unless_a_policy_says_otherwise() -> None:
    assert left_after(errors.Throttled("429"), Policy()) == 50
    assert left_after(errors.ProviderUnavailable("503"), Policy()) == 5
    assert left_after(errors.Throttled("429"), Policy.model_validate({"throttled": {"max_s": 300}})) == 50
    assert left_after(errors.Throttled("429"), Policy(max_attempts=5)) == 5


@pytest.mark.parametrize(("configured", "expected"), [(10, 3), (2, 2)])
def test_what_may_have_been_billed_is_tried_three_times_at_most_unless_asked_for(
    configured: int, expected: int
) -> None:
    assert left_after(errors.ProviderTimeout("slow"), Policy(max_attempts=configured)) == expected


def test_a_class_may_wait_longer_than_others() -> None:
    policy = Policy.model_validate({"base_s": 1, "throttled": {"base_s": 1000, "max_s": 200}})
    waits = [
        decision.wait_s
        for _ in range(100)
        if isinstance(decision := decided(errors.Throttled(""), policy=policy), Retry)
    ]

    assert 10 < max(waits) <= 200


def test_no_retry_begins_behind_the_greatest_age() -> None:
    policy = Policy(max_age_s=60)

    assert decided(errors.Throttled("429"), policy=policy, age_s=60) == Bury("attempts_exhausted", "exhausted")
    assert isinstance(decided(errors.Throttled("429"), policy=policy, age_s=50), Retry)


def test_labels_of_ends() -> None:
    assert [outcome_label(end) for end in (Bury("x", "poison"), Expire())] == ["dead_letter", "expired"]
