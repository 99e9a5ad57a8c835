"""A hand-over whose disk is full for a while rests, and goes on with what is on the log."""

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from contracts.batch_jobs import HandOver, HandOverPart
from contracts.codec import Record
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


def of_sqlite(code: int, message: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


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


@pytest.mark.parametrize("failure", [NO_ROOM, of_sqlite(sqlite3.SQLITE_FULL, "database or disk is full")])
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


OTHERS = [
    ZeroDivisionError(),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.EACCES, "Permission denied"),
    of_sqlite(sqlite3.SQLITE_ERROR, "no such table: answer"),
]


@pytest.mark.parametrize("failure", OTHERS)
def test_other_failures_are_not_taken_for_the_disks(failure: Exception) -> None:
    before = rests()
    with pytest.raises(type(failure)):
        _Service(settings(), failure).run()

    assert rests() == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_disk_that_is_full_or_cannot_be_written_is_waited_for(number: int) -> None:
    service = _Service(settings(retry_pause_s=0.01), OSError(number, os.strerror(number)))
    service.run()

    assert service.sessions == 2


def test_a_session_that_finds_no_room_leaves_no_client_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(**_: Any) -> None:
        raise NO_ROOM

    made: list[object] = []
    monkeypatch.setattr("streams.handover.service.tempfile.TemporaryDirectory", refuse)
    monkeypatch.setattr("streams.handover.service.FencedProducer", lambda *_: made.append(_))
    # Somebody has tidied the folder away.
    service = Service(settings(work_dir=str(tmp_path / "work")))

    with pytest.raises(OSError, match="No space left"):
        service._session()
    assert made == []
    assert (tmp_path / "work").is_dir()


def test_a_hand_over_that_is_taken_up_looks_no_more_often_than_before(
    ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions end every few seconds where nothing can be gathered."""
    site, service = _Site(ways), Service(settings())
    state = hand_over(state="running", parts={"m": msgspec.structs.replace(PART, arn="arn:1", status="Submitted")})
    looks: list[str] = []

    def look(arn: str) -> tuple[str, str]:
        looks.append(arn)
        return "InProgress", ""

    monkeypatch.setattr(site.desk.ways.apis["p"].jobs, "status", look)
    for _ in range(3):
        service._open = service._deliveries(site.desk, [state], tmp_path)
        service._step()

    assert looks == ["arn:1"]


def test_a_figure_that_kafka_does_not_tell_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def ends(_topic: str) -> list[int]:
        asked.set()
        answer.wait(20)
        return []

    steps: list[str] = []
    service = Service(settings())

    def step() -> None:
        steps.append("step")
        if len(steps) == 3:
            assert asked.wait(10)
            service.stop()

    monkeypatch.setattr(service, "_step", step)
    reader = SimpleNamespace(
        begin=lambda _: None, to_the_end=list, spans=lambda _: [], ends=ends, poll=lambda _: [], widen=set
    )
    log = SimpleNamespace(id="", confirm=lambda: None, holds=lambda _: True)
    try:
        service._work(cast("Desk", SimpleNamespace(log=log, reader=lambda: contextlib.nullcontext(reader))), tmp_path)
        assert not answer.is_set()
    finally:
        answer.set()
    assert len(steps) == 3


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
    log = SimpleNamespace(id="", confirm=lambda: None, holds=lambda _: True)

    with pytest.raises(OSError, match="No space left"):
        service._work(cast("Desk", SimpleNamespace(log=log, reader=lambda: contextlib.nullcontext(reader))), tmp_path)
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
        mine = SimpleNamespace(
            apis={"p": SimpleNamespace(batch=ways.by_alias["m"].batch, jobs=jobs)},
            asked=ways.asked,
            jobs=lambda *_: jobs,
            prompts=ways.prompts,
            readings=ways.readings,
            job=ways.job,
            line=ways.line,
        )
        self.desk = cast(
            "Desk",
            SimpleNamespace(
                settings=make_settings(),
                topics=TOPICS,
                ways=mine,
                producer=SimpleNamespace(write=self.written.extend),
                outcomes=SimpleNamespace(retry=lambda *_: Record("retries", None, b"", ())),
                log=SimpleNamespace(confirm=lambda: None),
                reader=lambda: contextlib.nullcontext(reader),
                is_stopped=lambda: False,
            ),
        )

    def _create(self, *_: object, **__: object) -> str:
        if self.refusals:
            raise self.refusals.pop()
        return "arn:1"


def test_answers_that_the_disk_has_no_room_for_are_fetched_again(
    ways: Ways, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.handover.delivery.time.monotonic", iter(range(0, 10**6, 1000)).__next__)
    delivery, before = Delivery(_Site(ways).desk, hand_over(state="running"), tmp_path), rests()

    def refuse(_: Path) -> None:
        raise of_sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file")

    with capture_logs() as lines, monkeypatch.context() as patch:
        patch.setattr("streams.handover.answers.sqlite3.connect", refuse)
        delivery.step()
    assert (delivery.is_over, rests()) == (False, before + 1)
    assert (lines[0]["event"], lines[0]["hand_over"], lines[0]["reason"]) == ("handover.rests", "h1", "disk")
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
