"""Lines of libraries are written like ours, and not again and again."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from contracts import logs
from tests.contracts.log_lab import configured
from tests.support import FakeClock

LIBRARY = logging.getLogger("somebody.conn")


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
    told = [line["exception"] for line in lines]
    assert [name for text in told for name in ("first", "second", "third") if f"in {name}" in text] == [
        "first",
        "second",
        "third",
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


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(logs, "REPETITIONS", logs.Repetitions(clock))
    return clock


def another_library() -> None:
    logging.getLogger("other.conn").error("Something else has happened")


def a_repeated_one() -> None:
    LIBRARY.error("Something else is said again and again")


def ourselves() -> None:
    logs.logger("gateway").info("request.accepted")


@pytest.mark.parametrize("come", [logs.tell_left_out, another_library, a_repeated_one, ourselves])
def test_behind_a_burst_whoever_comes_next_tells_how_many_lines_were_left_out(
    come: Callable[[], None], clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with configured():
        a_repeated_one()
        clock.advance(logs.QUIET_S)
        for number in range(20):
            LIBRARY.error("Unable connect to node with id %s", number)
        a_repeated_one()
        clock.advance(logs.QUIET_S + 1.9)
        come()
        before = lines_of(capsys.readouterr().err)
        clock.advance(0.1)
        come()
        come()

    told = [line for line in lines_of(capsys.readouterr().err) if line["event"] == "lines.left_out"]
    assert not any(line["event"] == "lines.left_out" for line in before)
    assert [{name: value for name, value in line.items() if name != "timestamp"} for line in told] == [
        {
            "event": "lines.left_out",
            "level": "error",
            "component": "somebody.conn",
            "detail": "Unable connect to node with id %s",
            "similar_left_out": 19,
        }
    ]


def test_what_comes_again_in_time_tells_its_number_itself(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        for _ in range(300):
            LIBRARY.error("Unable connect to node with id %s", 1)
            clock.advance(0.1)
            logs.tell_left_out()

    lines = lines_of(capsys.readouterr().err)
    assert [(line["event"], line.get("similar_left_out")) for line in lines] == [
        ("Unable connect to node with id 1", None),
        ("Unable connect to node with id 1", 99),
        ("Unable connect to node with id 1", 99),
    ]


def test_a_line_about_repeated_errors_names_their_type(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        for _ in range(3):
            try:
                int("none")
            except ValueError:
                LIBRARY.exception("Unexpected error in coordinator routine")
        clock.advance(logs.QUIET_S + 2)
        logs.tell_left_out()

    assert [(line["error"], line["similar_left_out"]) for line in lines_of(capsys.readouterr().err)[1:]] == [
        ("ValueError", 2)
    ]


def test_kinds_without_end_lose_no_number(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        for _ in range(2):
            LIBRARY.error("Unable connect to node with id %s", 1)
        for number in range(1000):
            logs.REPETITIONS.left_out(logs.Kind("other", logging.ERROR, f"always another one {number}"))

    assert clock() == FakeClock()()
    assert [line.get("similar_left_out") for line in lines_of(capsys.readouterr().err)] == [None, 1]


def test_the_end_of_a_process_tells_what_is_left() -> None:
    program = (
        "import logging; from contracts import logs; from contracts.settings.logging import LogSettings\n"
        "logs.configure(LogSettings(format='json'))\n"
        "for _ in range(4): logging.getLogger('somebody').error('Unable to connect')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)

    first, last = lines_of(done.stderr)
    assert first["event"] == "Unable to connect"
    assert (last["event"], last["component"], last["similar_left_out"]) == ("lines.left_out", "somebody", 3)
