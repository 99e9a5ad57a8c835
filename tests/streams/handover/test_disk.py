"""A hand-over whose disk is full for a while rests, and goes on with what is on the log."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.batch_jobs import HandOver, HandOverPart
from contracts.errors import ConfigError, Throttled
from contracts.metrics import REGISTRY
from contracts.settings import Settings
from producers.log_reader import Found
from streams.handover.choosing import Ways
from streams.handover.delivery import Delivery, Desk
from streams.handover.gathering import Gathering
from streams.handover.service import Service
from tests.streams.handover.support import TOPICS, make_settings, record
from tests.support import eventually

NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
FULL = Path("/dev/full")


def rests() -> float:
    return REGISTRY.get_sample_value("penstock_handover_rests_total", {"reason": "disk"}) or 0.0


def settings(**batch_jobs: Any) -> Settings:
    made = make_settings()
    return made.model_copy(update={"batch_jobs": made.batch_jobs.model_copy(update=batch_jobs)})


@pytest.fixture
def ways() -> Iterator[Ways]:
    made = Ways(make_settings())
    yield made
    made.close()


class _Service(Service):
    """A service whose sessions end as they are told to; the last one is its end."""

    def __init__(self, settings: Settings, *failures: Exception) -> None:
        super().__init__(settings)
        self.failures = list(failures)
        self.sessions = 0
        self._patience = cast("Any", SimpleNamespace(run=lambda work: work(), waits_for="", reasons=[]))

    def _session(self) -> None:
        self.sessions += 1
        if self.failures:
            raise self.failures.pop()


@pytest.mark.parametrize("failure", [NO_ROOM, sqlite3.OperationalError("database or disk is full")])
def test_it_begins_anew_when_the_disk_has_room_again(failure: Exception) -> None:
    service, before = _Service(settings(retry_pause_s=0.01), failure, failure), rests()
    with capture_logs() as lines:
        service.run()

    assert (service.sessions, rests()) == (3, before + 2)
    assert [(line["event"], line["reason"], line["error"]) for line in lines] == [
        ("handover.rests", "disk", str(failure))
    ] * 2


def test_it_is_not_ready_while_it_rests_and_a_stop_does_not_wait_for_it() -> None:
    service = _Service(settings(retry_pause_s=600.0), NO_ROOM)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    eventually(lambda: service.unready() == [f"disk: {NO_ROOM}"])
    service.stop()
    thread.join(10)

    assert not thread.is_alive()


def test_other_failures_are_not_taken_for_the_disks() -> None:
    with pytest.raises(ZeroDivisionError):
        _Service(settings(), ZeroDivisionError()).run()


def test_a_work_folder_that_is_none_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    service = _Service(settings(work_dir=str(tmp_path / "file")))

    with pytest.raises(ConfigError, match=r"batch_jobs\.work_dir: .*/file cannot be used"):
        service.run()
    assert service.sessions == 0


@pytest.mark.parametrize(("number", "sessions"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 0)])
def test_a_work_folder_that_is_full_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sessions: int
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("streams.handover.service.tempfile.TemporaryFile", refuse)
    service = _Service(settings(work_dir=str(tmp_path / "new")))
    if not sessions:
        with pytest.raises(ConfigError):
            service.run()
    else:
        service.run()

    assert service.sessions == sessions


def test_what_is_under_way_goes_on_though_nothing_more_can_be_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brings to its end makes room."""

    def poll(_timeout_s: float) -> None:
        raise NO_ROOM

    steps: list[str] = []
    service = Service(settings())
    monkeypatch.setattr(service, "_step", lambda: steps.append("step"))
    reader = SimpleNamespace(begin=lambda _: None, to_the_end=list, spans=lambda _: [], ends=lambda _: [], poll=poll)
    log = SimpleNamespace(confirm=lambda: None, holds=lambda _: True)

    with pytest.raises(OSError, match="No space left"):
        service._work(cast("Desk", SimpleNamespace(log=log, reader=lambda: _Opened(reader))), tmp_path)
    assert steps == ["step"]


PART = HandOverPart(token="t", input_uri="s3://jobs/in/h1/0.jsonl", output_uri="s3://jobs/out/h1/")


def hand_over(**changes: Any) -> HandOver:
    now = "2026-11-29T00:00:00.000Z"
    return HandOver(id="h1", ranges={"0": (0, 2)}, answer_starts={}, gathered_at=now, **{"parts": {}, **changes})


class _Site:
    """A desk on which nothing fails but the disk."""

    def __init__(self, ways: Ways) -> None:
        self.written: list[Any] = []
        reader = SimpleNamespace(read=lambda *_: self.records, begin=lambda *_: None, to_the_end=list)
        self.records: list[Found] = [record(0), record(1)]
        self.put: list[bytes] = []
        self.refusals: list[Exception] = []
        jobs = SimpleNamespace(
            has=lambda _: bool(self.put),
            put=lambda _, path: self.put.append(path.read_bytes()),
            create=self._create,
            record_ids=lambda _: [],
            status=lambda _: ("InProgress", ""),
        )
        way = SimpleNamespace(batch=ways.by_alias["m"].batch, model=ways.by_alias["m"].model, jobs=jobs)
        mine = SimpleNamespace(by_alias={"m": way}, by_route=ways.by_route, job=ways.job, line=ways.line)
        self.desk = cast(
            "Desk",
            SimpleNamespace(
                settings=make_settings(),
                topics=TOPICS,
                ways=mine,
                producer=SimpleNamespace(write=self.written.extend),
                outcomes=SimpleNamespace(retry=lambda *_: record(9)),
                log=SimpleNamespace(confirm=lambda: None),
                reader=lambda: _Opened(reader),
                is_stopped=lambda: False,
            ),
        )

    def _create(self, *_: object) -> str:
        if self.refusals:
            raise self.refusals.pop()
        return "arn:1"


class _Opened:
    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *_: object) -> None:
        pass


def test_answers_that_the_disk_has_no_room_for_are_fetched_again(
    ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.handover.delivery.time.monotonic", iter(range(0, 10**6, 1000)).__next__)
    # Where a database cannot be made: it is a folder.
    (tmp_path / "answers.db").mkdir()
    delivery, before = Delivery(_Site(ways).desk, hand_over(state="running"), tmp_path), rests()
    with capture_logs() as lines:
        delivery.step()
    assert (delivery.is_over, rests()) == (False, before + 1)
    assert (lines[0]["event"], lines[0]["hand_over"], lines[0]["reason"]) == ("handover.rests", "h1", "disk")
    (tmp_path / "answers.db").rmdir()
    delivery.step()

    assert delivery.is_over


def test_answers_are_fetched_though_somebody_has_removed_the_folder(ways: Ways, tmp_path: Path) -> None:
    """It is empty for as long as the jobs take; what tidies temporary files takes it for one that nobody needs."""
    delivery = Delivery(_Site(ways).desk, hand_over(state="running"), tmp_path / "h1")
    delivery.step()

    assert delivery.is_over


@pytest.fixture
def site(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> _Site:
    """Give a desk at which every step is due."""
    monkeypatch.setattr("streams.handover.delivery.time.monotonic", iter(range(0, 10**6, 1000)).__next__)
    return _Site(ways)


def test_records_that_the_disk_has_no_room_for_are_written_again(site: _Site, tmp_path: Path) -> None:
    delivery = Delivery(site.desk, hand_over(parts={"m": PART}), tmp_path)
    (tmp_path / "m.jsonl").symlink_to(FULL)
    delivery.step()
    assert (delivery.state.state, site.put) == ("gathered", [])
    assert list(tmp_path.iterdir()) == [], "half a file takes the room that others could go on with"
    delivery.step()

    assert delivery.state.state == "running"
    assert list(tmp_path.iterdir()) == [], "it is on S3"
    assert [lines.count(b"\n") for lines in site.put] == [2]


@pytest.mark.parametrize("name", ["m.jsonl", "after-h0/m.jsonl"])
def test_records_whose_file_somebody_has_removed_are_written_again(site: _Site, tmp_path: Path, name: str) -> None:
    delivery = Delivery(site.desk, hand_over(parts={"m": PART}), tmp_path / "h1", {"m": tmp_path / name})
    delivery.step()
    assert delivery.state.state == "gathered"
    delivery.step()

    assert (delivery.state.state, [lines.count(b"\n") for lines in site.put]) == ("running", [2])


def test_a_job_that_is_created_later_than_its_records_are_put_leaves_no_file(site: _Site, tmp_path: Path) -> None:
    site.refusals.append(Throttled("too many jobs", retry_after_s=1.0))
    delivery = Delivery(site.desk, hand_over(parts={"m": PART}), tmp_path)
    delivery.step()
    assert (delivery.state.state, len(site.put)) == ("gathered", 1)
    delivery.step()

    assert (delivery.state.state, len(site.put)) == ("running", 1)
    assert list(tmp_path.iterdir()) == []


def test_records_that_are_too_few_for_a_job_leave_no_file(ways: Ways, tmp_path: Path) -> None:
    gathering = Gathering(ways, tmp_path)
    gathering.take(record(0))

    assert gathering.close() == {}
    assert list(tmp_path.iterdir()) == []


def test_what_was_gathered_on_a_full_disk_is_let_go_without_a_word(ways: Ways, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").symlink_to(FULL)
    gathering = Gathering(ways, tmp_path)
    gathering.take(record(0))
    gathering.abandon()

    assert gathering._lines["m"]._file.closed
