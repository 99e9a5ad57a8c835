"""The log has the place and the type of what went wrong, and no text that may quote an event, an answer or a secret."""

import json
import logging

import pytest

from contracts import logs
from contracts.errors import ContentBlocked, OutputInvalid, PenstockError
from tests.contracts.log_lab import configured

PAYLOAD = "Ines Weber"


def _convert(text: str) -> float:
    return float(text)


def _fail() -> None:
    try:
        try:
            _convert(PAYLOAD)
        except ValueError as error:
            raise KeyError(PAYLOAD) from error
    except KeyError:
        raise PenstockError("no answer yet")  # noqa: B904, EM101, TRY003 - the context alone is to be told too


def test_a_traceback_has_places_and_types_of_all_that_led_to_it_and_quotes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured():
        try:
            _fail()
        except PenstockError:
            logs.logger("worker").exception("step.failed")

    written = capsys.readouterr().err
    told = json.loads(written)["exception"]
    assert PAYLOAD not in written
    assert [line for line in told.splitlines() if line.startswith(("ValueError", "KeyError", "PenstockError"))] == [
        "ValueError",
        "KeyError",
        "PenstockError: no answer yet",
    ]
    assert "in _convert\n    return float(text)" in told


def test_a_librarys_traceback_is_told_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup(PAYLOAD, [ValueError(PAYLOAD), ConnectionRefusedError(111, "Connection refused")])
    with configured():
        logging.getLogger("somebody").error("it broke", exc_info=group)

    written = capsys.readouterr().err
    assert PAYLOAD not in written
    assert "ExceptionGroup" in written
    assert "ConnectionRefusedError: [Errno 111] Connection refused" in written


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(PAYLOAD), "ValueError"),
        (KeyError(PAYLOAD), "KeyError"),
        (UnicodeDecodeError("utf-8", PAYLOAD.encode(), 0, 1, "invalid"), "UnicodeDecodeError"),
        (FileNotFoundError(2, "No such file", "a"), "FileNotFoundError: [Errno 2] No such file: 'a'"),
        (OutputInvalid(PAYLOAD, PAYLOAD, "not of the schema"), "OutputInvalid: not of the schema"),
    ],
)
def test_the_text_of_an_error_is_told_where_it_quotes_nothing(error: Exception, told: str) -> None:
    assert logs.described(error) == told


def test_a_providers_refusal_of_one_event_is_told_without_its_words() -> None:
    assert PAYLOAD not in ContentBlocked(PAYLOAD).for_log
    assert str(ContentBlocked(PAYLOAD)) == PAYLOAD
