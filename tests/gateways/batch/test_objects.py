"""Inputs and results on S3, against moto's server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.batch_jobs import BatchObject
from contracts.errors import InvalidPayload, Retryable, TooLarge
from contracts.settings import BatchJobSettings
from gateways.batch.objects import Objects, below, beside
from gateways.batch.workspace import Desk
from tests.awslab.moto import Moto

BUCKET = "in-bucket"
URI = f"s3://{BUCKET}/a/in.jsonl"


@pytest.fixture
def s3(s3: Any, moto: Moto) -> Any:
    """Give it with the bucket."""
    moto.bucket(BUCKET)
    return s3


def settings(s3: Any, **changes: Any) -> BatchJobSettings:
    return BatchJobSettings(s3_endpoint_url=s3.meta.endpoint_url, **changes)


@pytest.fixture
def objects(s3: Any) -> Iterator[Objects]:
    opened = Objects(settings(s3))
    yield opened
    opened.close()


def test_an_input_is_fetched_exactly_as_it_was_found(s3: Any, objects: Objects, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/in.jsonl", Body=b"1\n")
    found = objects.find(URI)
    objects.fetch(found, tmp_path / "copy")

    assert (found.size_bytes, (tmp_path / "copy").read_bytes()) == (2, b"1\n")


def test_an_input_that_was_replaced_since_is_not_taken_for_the_first(s3: Any, objects: Objects, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/in.jsonl", Body=b"1\n")
    found = objects.find(URI)
    s3.put_object(Bucket=BUCKET, Key="a/in.jsonl", Body=b"2\n")

    with pytest.raises(InvalidPayload, match="PreconditionFailed"):
        objects.fetch(found, tmp_path / "copy")


def test_an_input_that_is_not_there_is_the_callers_fault(s3: Any, objects: Objects) -> None:
    assert s3

    with pytest.raises(InvalidPayload, match="404"):
        objects.find(URI)


def test_an_input_above_the_limit_is_refused_before_it_is_copied(s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=BUCKET, Key="a/in.jsonl", Body=b"12345")
    with Desk(settings(s3, max_input_bytes=4), tmp_path) as desk, pytest.raises(TooLarge):
        desk.input(URI)


def test_an_endpoint_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    objects = Objects(BatchJobSettings(s3_endpoint_url="http://127.0.0.1:9", s3_region="us-east-1"))
    with pytest.raises(Retryable):
        objects.fetch(BatchObject(uri=URI), tmp_path / "copy")
    objects.close()


def test_results_are_put_under_the_prefix_with_the_manifest_last(s3: Any, objects: Objects, tmp_path: Path) -> None:
    for name in ("output.jsonl", "errors.jsonl", "manifest.json"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    uris = below(f"s3://{BUCKET}/done/", "a/in.jsonl", "job")
    objects.put(tmp_path, uris)

    assert uris["output"] == f"s3://{BUCKET}/done/a/in.jsonl/job/output.jsonl"
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert {entry["Key"].rpartition("/")[2] for entry in listed} == {"output.jsonl", "errors.jsonl", "manifest.json"}


def test_files_lie_beside_each_other() -> None:
    assert beside(Path("x/out.jsonl")) == {
        "output": "x/out.jsonl", "errors": "x/out.errors.jsonl", "manifest": "x/out.manifest.json",
    }  # fmt: skip
