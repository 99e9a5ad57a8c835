"""The folder that a command works in: a job has the input that it began with, whatever becomes of the file."""

import errno
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO

import pytest

from contracts.errors import ConfigError, InvalidPayload, Retryable, TooLarge
from contracts.settings import BatchJobSettings
from gateways.batch import workspace
from gateways.batch.lines import Lines, fingerprint
from gateways.batch.workspace import Desk

LINE = b'{"n": 1}\n'


@pytest.fixture
def input_(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(3 * LINE)
    return path


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(5 * LINE)
    (path.parent / "new").replace(path)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LINE)


@pytest.mark.parametrize("change", [append, replace, Path.unlink, lambda path: os.truncate(path, 4)])
def test_what_becomes_of_the_input_changes_no_job(input_: Path, change: object) -> None:
    with Desk(BatchJobSettings(), input_.parent) as desk:
        origin, path = desk.input("in.jsonl")
        before = fingerprint(path)
        reading = iter(Lines(path, "", "", 1000))
        next(reading)
        assert callable(change)
        change(input_)

        assert (origin.uri, before) == (str(input_), fingerprint(path))
        assert [line.number for line in reading] == [2, 3]


@pytest.mark.parametrize("change", [append, lambda path: os.truncate(path, 4), lambda path: path.write_bytes(LINE * 3)])
def test_an_input_that_changes_while_it_is_copied_is_refused(
    input_: Path, change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(input_, ns=(0, 0))
    state = workspace._state
    told: list[tuple[int, int]] = []

    def changing(file: BinaryIO) -> tuple[int, int]:
        """Return what was there before, and change it then."""
        found = state(file)
        if not told:
            assert callable(change)
            change(input_)
        told.append(found)
        return found

    monkeypatch.setattr(workspace, "_state", changing)
    with Desk(BatchJobSettings(), input_.parent) as desk, pytest.raises(InvalidPayload, match="it changes while it is"):
        desk.input("in.jsonl")


def test_a_file_has_the_limit_of_objects(input_: Path) -> None:
    limit = len(3 * LINE)
    with Desk(BatchJobSettings(max_input_bytes=limit), input_.parent) as desk:
        assert desk.input("in.jsonl")[1].read_bytes() == 3 * LINE
    with Desk(BatchJobSettings(max_input_bytes=limit - 1), input_.parent) as desk, pytest.raises(TooLarge):
        desk.input("in.jsonl")


def test_a_work_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    desk = Desk(BatchJobSettings(work_dir=f"{tmp_path}/none"), tmp_path)
    with pytest.raises(ConfigError, match=r"batch_jobs.work_dir: .*/none cannot be used: No such file"), desk:
        pass


def test_a_full_disk_is_told_with_its_setting(input_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Desk, "_copy", full)
    work = input_.parent
    said = rf"^batch_jobs.work_dir: {work}: No space left on device$"
    with Desk(BatchJobSettings(work_dir=str(work)), work) as desk, pytest.raises(Retryable, match=said):
        desk.input("in.jsonl")


def test_a_full_disk_under_the_outcomes_is_told_with_its_setting(tmp_path: Path) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    said = rf"^batch_jobs.work_dir: {tmp_path}: database or disk is full$"
    with pytest.raises(Retryable, match=said), Desk(BatchJobSettings(work_dir=str(tmp_path)), tmp_path):
        raise error
    assert list(tmp_path.iterdir()) == []
