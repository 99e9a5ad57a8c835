"""Lines of libraries are written like ours, and not again and again."""

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from contracts import logs
from contracts.settings.logging import LogSettings
from tests.support import FakeClock

LIBRARY = logging.getLogger("somebody.conn")


@contextlib.contextmanager
def configured() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure(LogSettings(format="json"))
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_a_librarys_line_names_its_logger_and_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        for number in range(20):
            LIBRARY.error("Unable connect to node with id %s: %s", number % 2, "refused")
        LIBRARY.error("Something else happened to %s", 1)

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["component"], line["event"]) for line in lines] == [
        ("somebody.conn", "Unable connect to node with id 0: refused"),
        ("somebody.conn", "Something else happened to 1"),
    ]


def test_errors_of_different_types_or_places_are_all_written(capsys: pytest.CaptureFixture[str]) -> None:
    def first() -> None:
        message = "one"
        raise ValueError(message)

    def second() -> None:
        message = "two"
        raise ValueError(message)

    def third() -> None:
        message = "one"
        raise KeyError(message)

    with configured():
        for act in (first, second, third, first, second, third):
            try:
                act()
            except (ValueError, KeyError):
                LIBRARY.exception("Unexpected error in coordinator routine")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["exception"].splitlines()[-1] for line in lines] == [
        "ValueError: one",
        "ValueError: two",
        "KeyError: 'one'",
    ]


def record(text: str, *args: object, level: int = logging.ERROR, name: str = "a") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


class Broken:
    """Has no text."""

    def __str__(self) -> str:
        raise RecursionError


@pytest.mark.parametrize("args", [("%s", Broken()), (Broken(),)], ids=["argument", "text"])
def test_what_has_no_text_is_left_to_logging(args: tuple[Any, ...]) -> None:
    assert logs.Repetitions().filter(record(*args))


def test_a_line_after_the_quiet_time_tells_how_many_were_left_out() -> None:
    clock = FakeClock()
    repetitions = logs.Repetitions(clock)
    found = [repetitions.filter(record("node %s is away", number)) for number in range(50)]
    clock.advance(logs.QUIET_S + 1)
    last = record("node %s is away", 51)

    assert found == [True] + 49 * [False]
    assert repetitions.filter(last)
    assert getattr(last, "similar_left_out") == 49  # noqa: B009 - logging's records have what one gives them


@pytest.mark.parametrize(
    "other",
    [
        record("%s [%s] %s", "CONFWARN", "rdkafka#consumer-1", "text"),
        record("%s [%s] %s", "FAIL", "rdkafka#consumer-1", "text", name="b"),
        record("%s [%s] %s", "FAIL", "rdkafka#consumer-1", "text", level=logging.CRITICAL),
        record("no arguments"),
    ],
    ids=["of another facility", "of another logger", "of another level", "of another text"],
)
def test_a_line_of_another_kind_is_written(other: logging.LogRecord) -> None:
    repetitions = logs.Repetitions(FakeClock())
    repetitions.filter(record("%s [%s] %s", "FAIL", "rdkafka#consumer-1", "text"))
    assert repetitions.filter(other)


def test_kinds_without_end_are_forgotten() -> None:
    repetitions = logs.Repetitions(FakeClock())
    for number in range(5000):
        repetitions.filter(record(f"a text that is always another one {number}"))
    assert len(repetitions._quiet_until_s) <= 1000
