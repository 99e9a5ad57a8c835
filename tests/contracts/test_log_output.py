"""A log that cannot be written stops nothing, and is counted."""

import contextlib
import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from contracts import logs
from contracts.line_log import LineLog
from contracts.metrics import REGISTRY
from contracts.signals import end_at_once
from tests.contracts.log_lab import configured

FULL = Path("/dev/full")


class Disk(io.StringIO):
    """Has room or not."""

    is_full = True

    def write(self, text: str) -> int:
        """Take a line, where there is room."""
        self.flush()
        return super().write(text)

    def flush(self) -> None:
        """Fail as a disk does."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextlib.contextmanager
def logging_to(stream: io.StringIO | None) -> Iterator[None]:
    with mock.patch.object(sys, "stderr", stream), mock.patch.object(logs.OUTPUT, "_unwritten", 0), configured():
        yield


def unwritten() -> float:
    return REGISTRY.get_sample_value("penstock_log_lines_unwritten_total") or 0.0


@pytest.mark.parametrize("stream", [Disk(), None], ids=["full", "closed at the start"])
def test_lines_that_find_no_room_are_counted_and_raise_nothing(stream: Disk | None) -> None:
    before, lines = unwritten(), LineLog("gateway", lambda _after_s, _call: None)
    with logging_to(stream):
        logs.logger("worker").warning("worker.stopping")
        logging.getLogger("somebody.conn").error("cannot connect")
        for number in range(300):
            lines.write("request.accepted", "info", {"status": 202, "offset": number})
        lines.flush()

    assert unwritten() - before == 302


def test_once_there_is_room_again_the_log_says_how_many_lines_are_missing() -> None:
    disk, log = Disk(), logs.logger("worker")
    with logging_to(disk):
        log.warning("worker.stopping")
        log.warning("worker.stopped")
        disk.is_full = False
        log.info("worker.started")
        log.info("worker.joined")

    found = [json.loads(line) for line in disk.getvalue().splitlines()]
    assert [line["event"] for line in found] == ["worker.started", "lines.unwritten", "worker.joined"]
    assert (found[1]["level"], found[1]["unwritten"]) == ("warning", 2)


def test_a_signal_ends_a_program_whose_log_is_full_at_once() -> None:
    with logging_to(Disk()), mock.patch.object(os, "_exit", side_effect=SystemExit) as exits:
        logs.logger("worker").warning("worker.killed")
        with pytest.raises(SystemExit):
            end_at_once(signal.SIGTERM)

    exits.assert_called_once_with(128 + signal.SIGTERM)


@pytest.mark.process
@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_a_log_that_is_full_does_not_change_the_status_of_a_program() -> None:
    program = (
        "from contracts import logs; from contracts.settings import LogSettings; import sys;"
        "logs.configure(LogSettings(format='json')); logs.logger('worker').error('worker.crashed'); sys.exit(3)"
    )
    with FULL.open("wb") as full_disk:
        ended = subprocess.run((sys.executable, "-c", program), stderr=full_disk, check=False)

    assert ended.returncode == 3
