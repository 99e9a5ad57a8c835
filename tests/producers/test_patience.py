"""What waits for Kafka says why once, whatever fails, and says it again when it had gone on meanwhile."""

import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import admin
from producers.admin import Patience


def failing(reasons: list[str], stop: threading.Event, seen: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Return work that fails for each of the reasons in turn, and ends."""
    left = list(reasons)

    def work() -> None:
        seen()
        if left:
            raise LogUnavailable(left.pop(0))
        stop.set()

    return work


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    monkeypatch.setattr(admin, "_AGAIN_S", 0.0)
    monkeypatch.setattr(Patience, "_look", lambda _self: None)
    return Patience(KafkaSettings(), "batch", threading.Event())


def test_the_same_reason_is_told_once_also_where_a_broker_answers_in_between(patience: Patience) -> None:
    reasons = ["topic a does not exist"] * 3 + ["topic b does not exist"] * 2
    with capture_logs() as lines:
        patience.run(failing(reasons, threading.Event()))

    assert [line["problems"] for line in lines] == [["topic a does not exist"], ["topic b does not exist"]]
    assert patience.reasons == []


def test_the_same_reason_is_told_again_after_work_that_went_on(
    patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_ATTEMPT_S", -1.0)
    with capture_logs() as lines:
        patience.run(failing(["away", "away"], threading.Event()))

    assert [line["problems"] for line in lines] == [["away"], ["away"]]
