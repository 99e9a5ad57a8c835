"""Failures of a job's folder: a disk that is full for a while is no end of the job."""

import errno
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import msgspec
import pytest

from contracts.batch_jobs import BatchObject, BatchRequest
from contracts.codec import encode_json
from contracts.errors import InvalidPayload
from contracts.settings import BatchInput, Settings
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


def test_an_end_that_another_process_notes_in_the_same_moment_is_no_bug() -> None:
    """Both find that the input is gone, which they look for before either takes the job over."""
    settings = Settings.model_validate(
        {"version": 1, "batch_jobs": {"inputs": [SECTION]}, "kafka": {"bootstrap_servers": "a:1"}}
    )
    service, run = Service(settings), create_autospec(JobRun, instance=True)
    run.fail.side_effect = TakenOver("another process has taken over")

    service._give_up(run, REQUEST, InvalidPayload("the input is gone"))

    assert service._left == {"j1"}


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("database or disk is full")],
)
def test_a_job_goes_on_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
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

    assert done == ["j1"]
