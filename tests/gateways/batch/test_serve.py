"""Failures of a job's folder: a disk that is full for a while is no end of the job."""

import errno
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from contracts.batch_jobs import BatchObject, BatchRequest
from contracts.settings import BatchInput, Settings
from gateways.batch.serve import Service

SECTION = {"name": "nightly", "bucket": "in-bucket", "output": "s3://out-bucket/done"}
REQUEST = BatchRequest(id="j1", input="nightly", object=BatchObject(uri="s3://in-bucket/a.jsonl"))


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
