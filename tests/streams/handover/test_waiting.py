"""What the figure of waiting records counts, and who asks for it."""

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.errors import LogUnavailable
from streams.handover import service
from streams.handover.service import waiting
from tests.support import eventually


def test_what_was_gathered_and_what_was_not_read_waits() -> None:
    # Partition 0: 3 gathered of which the last was read, then 4 to come. 1: read to its end. 2: nothing read yet.
    assert waiting((10, 5, 7), (6, 5, 0), {"0": (3, 6)}) == 7 + 0 + 7


def test_a_topic_that_is_shorter_than_what_was_read_counts_nothing() -> None:
    assert waiting((2,), (9,), {}) == 0


def test_the_ends_are_asked_for_again_when_no_client_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MEASURE_EVERY_S", 0.01)
    made: list[str] = []

    @contextlib.contextmanager
    def reader() -> Iterator[Any]:
        made.append(threading.current_thread().name)
        if len(made) < 3:
            message = "Kafka cannot be asked: no thread"
            raise LogUnavailable(message)
        yield SimpleNamespace(ends=lambda topic: {"handovers": (3, 5)}[topic])

    with capture_logs() as lines, service._Ends(cast("Any", SimpleNamespace(reader=reader)), "handovers") as ends:
        eventually(lambda: ends.told == (3, 5))

    assert made == ["hand-over-ends"] * 3
    assert [(line["event"], line["error"]) for line in lines] == [
        ("handover.ends_unknown", "Kafka cannot be asked: no thread")
    ]
