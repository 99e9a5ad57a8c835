"""The most frequent lines, against those of structlog."""

import asyncio
import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts import logs
from contracts.line_log import LineLog
from contracts.settings import LogSettings
from tests.support import eventually_async

FIELDS = {"source": "crm", "event_id": "e\u00fc\n1", "status": 202, "duration_s": 0.001234, "offset": 2**40}


def _log() -> LineLog:
    return LineLog("gateway", lambda after_s, call: asyncio.get_running_loop().call_later(after_s, call))


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_a_line_is_the_one_that_structlog_writes(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    log.write("request.accepted", "info", FIELDS)
    log.flush()
    logs.logger("gateway").info("request.accepted", **FIELDS)

    ours, theirs = _lines(capsys)
    assert len(ours["timestamp"]) == len(theirs["timestamp"])
    assert ours | {"timestamp": ""} == theirs | {"timestamp": ""}
    assert list(ours) == list(theirs)


async def test_a_process_among_several_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"), process=3)
    log = _log()
    log.write("request.accepted", "info", FIELDS)
    log.flush()
    logs.logger("gateway").info("request.accepted", **FIELDS)

    ours, theirs = _lines(capsys)
    assert list(ours) == list(theirs)
    assert ours["process"] == theirs["process"] == 3


async def test_lines_are_written_together_and_soon(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    for number in range(3):
        log.write("request.refused", "warning", {"status": 500 + number})

    assert not _lines(capsys)
    assert await eventually_async(lambda: [line["status"] for line in _lines(capsys)]) == [500, 501, 502]


async def test_many_lines_do_not_wait(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    for number in range(256):
        log.write("request.accepted", "info", {"status": number})

    assert len(_lines(capsys)) == 256


@pytest.mark.parametrize(("level", "written"), [("info", 2), ("warning", 1), ("error", 0)])
async def test_the_level_holds(capsys: pytest.CaptureFixture[str], level: Any, written: int) -> None:
    logs.configure(LogSettings(format="json", level=level))
    log = _log()
    log.write("request.accepted", "info", FIELDS)
    log.write("request.refused", "warning", FIELDS)
    log.flush()

    assert len(_lines(capsys)) == written


async def test_text_lines_are_left_to_structlog() -> None:
    with capture_logs() as lines:
        _log().write("request.accepted", "info", FIELDS)

    assert lines == [FIELDS | {"component": "gateway", "event": "request.accepted", "log_level": "info"}]


async def test_who_captures_lines_between_two_of_them_sees_them() -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    log.write("request.accepted", "info", FIELDS)
    with capture_logs() as lines:
        log.write("request.accepted", "info", FIELDS)
    log.write("request.accepted", "info", FIELDS)

    assert len(lines) == 1


async def test_lines_keep_their_order_when_the_processors_are_exchanged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    log.write("request.accepted", "info", {"status": 1})
    with capture_logs() as captured:
        log.write("request.accepted", "info", {"status": 2})

    assert [line["status"] for line in _lines(capsys)] == [1]
    assert [line["status"] for line in captured] == [2]


async def test_a_line_that_cannot_be_encoded_costs_no_other_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(LogSettings(format="json"))
    log = _log()
    for path in ("/a", "/\udc80", "/c"):
        log.write("request.refused", "warning", {"path": path})
    log.flush()

    lines = _lines(capsys)
    assert [line.get("path") for line in lines] == ["/a", None, "/c"]
    assert (lines[1]["event"], lines[1]["detail"]) == ("request.refused", "{'path': '/\\udc80'}")
