"""Failures of a job's folder: a disk that is full for a while is no end of the job."""

import errno
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock, create_autospec

import msgspec
import pytest

from contracts.batch_jobs import BatchObject, BatchRequest
from contracts.codec import encode_json
from contracts.errors import InvalidPayload, LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings import BatchInput, Settings
from gateways.batch import serve
from gateways.batch.objects import Objects
from gateways.batch.run import JobRun
from gateways.batch.serve import Service
from gateways.batch.submitting import wanted_job
from producers.fenced import TakenOver
from producers.log_reader import Found

SECTION = {"name": "nightly", "bucket": "in-bucket", "output": "s3://out-bucket/done"}
REQUEST = BatchRequest(id="j1", input="nightly", object=BatchObject(uri="s3://in-bucket/a.jsonl"))


def test_a_job_that_is_begun_again_is_the_one_that_was_heard_of_before(tmp_path: Path) -> None:
    """Its topic may have been made anew meanwhile: a job that nobody knows is sent from its first line on."""
    settings = Settings.model_validate(
        {"version": 1, "batch_jobs": {"inputs": [SECTION]}, "kafka": {"bootstrap_servers": "a:1"}}
    )
    service, run = Service(settings), create_autospec(JobRun, instance=True)
    job = wanted_job("j1", REQUEST.object, source="s", kind="t")
    run.submit.return_value = msgspec.structs.replace(job, state="failed")
    service._objects = create_autospec(Objects, instance=True)
    service._jobs.note([Found("jobs", 0, 0, b"j1/job", encode_json(job), {})])

    service._once(run, REQUEST, settings.batch_jobs.inputs[0], tmp_path)

    assert run.submit.call_args.kwargs == {"known": job}


def test_a_request_whose_id_is_no_name_of_a_folder_is_passed_over() -> None:
    """The folder of a job is emptied before it is worked on: that of `..` is everybody's."""
    settings = Settings.model_validate(
        {"version": 1, "batch_jobs": {"inputs": [SECTION]}, "kafka": {"bootstrap_servers": "a:1"}}
    )
    service = Service(settings)
    foreign = [msgspec.structs.replace(REQUEST, id=name) for name in ("..", "../..", "/etc", "")]
    job = wanted_job("../x", REQUEST.object, source="s", kind="t")

    service._jobs.note([Found("jobs", 0, 0, f"{one.id}/request".encode(), encode_json(one), {}) for one in foreign])
    service._jobs.note([Found("jobs", 0, 0, b"../x/job", encode_json(job), {})])

    assert (service._jobs.waiting, service._jobs.jobs) == ([], {})


def test_an_end_that_another_process_notes_in_the_same_moment_is_no_bug() -> None:
    """Both find that the input is gone, which they look for before either takes the job over."""
    settings = Settings.model_validate(
        {"version": 1, "batch_jobs": {"inputs": [SECTION]}, "kafka": {"bootstrap_servers": "a:1"}}
    )
    service, run = Service(settings), create_autospec(JobRun, instance=True)
    run.fail.side_effect = TakenOver("another process has taken over")

    service._give_up(run, REQUEST, InvalidPayload("the input is gone"))

    assert service._left == {"j1"}


def of_sqlite(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = code
    return error


def rests(reason: str) -> float:
    return REGISTRY.get_sample_value("penstock_batch_job_rests_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk"),
        (of_sqlite(sqlite3.SQLITE_FULL), "disk"),
        (OSError(errno.EMFILE, "Too many open files"), "system"),
        (PermissionError(errno.EACCES, "Permission denied"), "system"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "transient"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "transient"),
    ],
)
def test_a_job_rests_for_what_failed_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, reason: str
) -> None:
    before = rests(reason)

    assert worked_on(tmp_path, monkeypatch, failure) == ["j1"]
    assert rests(reason) == before + 1


def test_a_bug_in_what_is_asked_of_the_database_is_no_reason_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        worked_on(tmp_path, monkeypatch, of_sqlite(sqlite3.SQLITE_ERROR))


def worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> list[str]:
    """Return which jobs were done, the first time with a failure."""
    failures = [failure]
    done: list[str] = []

    def once(_service: Service, _run: Any, request: BatchRequest, _section: BatchInput, _folder: Path) -> None:
        if failures:
            raise failures.pop()
        done.append(request.id)

    monkeypatch.setattr(Service, "_once", once)
    settings = Settings.model_validate(
        {
            "version": 1,
            "batch_jobs": {"inputs": [SECTION], "retry_pause_s": 0.01},
            "kafka": {"bootstrap_servers": "a:1"},
        }
    )

    Service(settings)._work(REQUEST, settings.batch_jobs.inputs[0], tmp_path / "j1")
    return done


def test_how_its_topic_differs_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not at every attempt while a topic is missing, say."""
    asked: list[list[str]] = []
    monkeypatch.setattr(serve, "differing", lambda _settings, names, _is_stopped: asked.append(names))
    monkeypatch.setattr(serve, "LogReader", Mock(side_effect=LogUnavailable("no topic")))
    service, pool = Service(Settings.model_validate({"version": 1})), create_autospec(ThreadPoolExecutor)

    for _ in range(2):
        with pytest.raises(LogUnavailable):
            service._follow(pool, tmp_path)

    assert len(asked) == 1
