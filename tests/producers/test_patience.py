"""What waits for Kafka says why once, whatever fails, and says it again when it had gone on meanwhile."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import admin
from producers.admin import Patience
from tests.support import eventually


def failing(*reasons: str) -> Callable[[], None]:
    """Return work that fails for each of the reasons in turn, and ends."""
    left = list(reasons)

    def work() -> None:
        if left:
            raise LogUnavailable(left.pop(0))

    return work


class SlowCluster:
    """Brokers that need a while to say which topics there are."""

    def __init__(self, _kafka: KafkaSettings, _timeout_s: float) -> None:
        pass

    def wait(self, limit_s: float) -> None:
        """Answer in 3 s."""
        if limit_s < 3:
            message = "no Kafka broker answers"
            raise LogUnavailable(message)


def test_a_cluster_that_answers_slowly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_AGAIN_S", 0.0)
    monkeypatch.setattr(admin, "TopicAdmin", SlowCluster)
    stop = threading.Event()
    # Otherwise it would wait for ever.
    timer = threading.Timer(5.0, stop.set)
    timer.start()
    done: list[bool] = []

    Patience(KafkaSettings(), "batch", stop).run(lambda: done.append(True))
    timer.cancel()

    assert done == [True]


def test_a_client_that_finds_no_broker_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have lost all it knew, and looks for none then, while a new one finds them at once."""
    made: list[int] = []

    class Admin:
        def __init__(self, *_: object) -> None:
            made.append(0)

        def wait(self, _limit_s: float) -> None:
            """Have the first client find nothing any more."""
            made[-1] += 1
            if len(made) == 1:
                message = "no Kafka broker answers"
                raise LogUnavailable(message)

    monkeypatch.setattr(admin, "_AGAIN_S", 0.0)
    monkeypatch.setattr(admin, "TopicAdmin", Admin)
    stop = threading.Event()
    # Otherwise it would wait for ever.
    timer = threading.Timer(5.0, stop.set)
    timer.start()

    Patience(KafkaSettings(), "batch", stop).run(lambda: None)
    timer.cancel()

    assert made == [8, 1]


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Patience:
    monkeypatch.setattr(admin, "_AGAIN_S", 0.0)
    monkeypatch.setattr(Patience, "_look", lambda _self: None)
    return Patience(KafkaSettings(), "batch", threading.Event())


def test_the_same_reason_is_told_once_also_where_a_broker_answers_in_between(patience: Patience) -> None:
    reasons = ["topic a does not exist"] * 3 + ["topic b does not exist"] * 2
    with capture_logs() as lines:
        patience.run(failing(*reasons))

    assert [line["problems"] for line in lines] == [["topic a does not exist"], ["topic b does not exist"]]
    assert patience.reasons == []


def test_the_same_reason_is_told_again_after_work_that_went_on(
    patience: Patience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "_ATTEMPT_S", -1.0)
    with capture_logs() as lines:
        patience.run(failing("away", "away"))

    assert [line["problems"] for line in lines] == [["away"], ["away"]]


def test_what_the_client_says_of_brokers_that_are_away_does_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps one error for every attempt to connect, and an outage may last for a day."""
    taken: list[object] = []
    monkeypatch.setattr(admin.Heard, "__call__", lambda _self, error: taken.append(error))
    asking = admin.TopicAdmin(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)), 0.1)

    def are_taken() -> bool:
        with pytest.raises(LogUnavailable):
            asking.wait(0.0)
        return bool(taken)

    eventually(are_taken, 20)


def test_a_client_ends_with_its_owner_and_waits_for_no_collector() -> None:
    """Whoever waits for brokers makes one every few seconds, each with threads."""
    asking = admin.TopicAdmin(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)), 0.1)
    gone = weakref.ref(asking)
    gc.disable()
    try:
        del asking

        assert gone() is None
    finally:
        gc.enable()
