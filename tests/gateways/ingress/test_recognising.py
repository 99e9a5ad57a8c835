"""By what a source's deliveries are recognised when they come again."""

from typing import Any

import pytest
from pydantic import ValidationError

from contracts.errors import ConfigError
from contracts.repetition import By
from contracts.settings import SourceSettings
from gateways.ingress.recognising import REDELIVERY_HEADER, Recogniser, vouched_text
from gateways.ingress.verifying import Verified


def source(**changes: Any) -> SourceSettings:
    document = {"scheme": "github", "secrets": [{"id": "k", "value": "env:S"}], "type": "t"}
    return SourceSettings.model_validate(document | changes)


@pytest.mark.parametrize(
    ("rule", "is_vouched", "by"),
    [
        ("auto", True, "id"),
        ("auto", False, "digest"),
        ("id", False, "id"),
        ("digest", True, "digest"),
        ("none", True, None),
    ],
)
def test_the_rule_of_the_source_and_who_vouches_for_the_id_decide(rule: str, is_vouched: bool, by: By | None) -> None:
    recogniser = Recogniser("s", source(idempotency={"by": rule}))

    assert recogniser.by(is_vouched=is_vouched) == by
    assert (recogniser.identity("e", b"", by) is None) == (by is None)


def test_the_signed_text_counts_where_it_is_the_same_in_every_delivery() -> None:
    """Twilio signs sorted parameters: the body of a replay may have another order."""
    assert vouched_text(Verified("k", signed=b"sorted"), b"body") == b"sorted"
    assert vouched_text(Verified("k", timestamp=1, signed=b"1.body"), b"body") == b"body"
    assert vouched_text(Verified("k"), b"body") == b"body"


def test_a_redelivery_is_known_by_the_secret_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_REDELIVERY", "a-secret-for-operators")
    recogniser = Recogniser("s", source(idempotency={"redelivery_secret": "env:TEST_REDELIVERY"}))

    assert recogniser.is_redelivery([(REDELIVERY_HEADER, b"a-secret-for-operators")])
    for value in (b"", b"true", b"\xff", b"a-secret-for-operator"):
        assert not recogniser.is_redelivery([(REDELIVERY_HEADER, value)])
    assert not Recogniser("s", source()).is_redelivery([(REDELIVERY_HEADER, b"")])


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_secret_that_can_be_guessed_keeps_the_gateway_from_starting(
    monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("TEST_REDELIVERY", secret)

    with pytest.raises(ConfigError, match=r"sources\.s\.idempotency\.redelivery_secret"):
        Recogniser("s", source(idempotency={"redelivery_secret": "env:TEST_REDELIVERY"}))


@pytest.mark.parametrize(
    ("changes", "window_s", "fits"),
    [
        ({}, 600, True),
        ({}, 599, False),
        ({"tolerance_s": 10}, 20, True),
        ({"tolerance_s": 1000}, 1999, False),
        (
            {"scheme": "sns", "secrets": [], "sns": {"topic_arns": ["arn:aws:sns:eu-west-1:123456789012:t"]}},
            7199,
            False,
        ),
    ],
)
def test_a_window_is_at_least_twice_the_tolerance(changes: dict[str, Any], window_s: float, fits: bool) -> None:
    if fits:
        source(**changes, idempotency={"window_s": window_s})
        return
    with pytest.raises(ValidationError, match="twice the tolerance"):
        source(**changes, idempotency={"window_s": window_s})
