"""Names and records of batch jobs."""

import pytest

from contracts.batch_jobs import BatchJob, BatchObject, BatchRequest, event_id, job_record, kind_of, line_of, request_of
from contracts.settings import BatchInput
from contracts.topics import Topics

NIGHTLY = BatchInput(name="nightly", bucket="in-bucket", key="in/*.jsonl", output="s3://out-bucket")


def request(key: str = "in/a.jsonl", bucket: str = "in-bucket", etag: str = "e1") -> BatchRequest | None:
    return request_of([NIGHTLY], bucket, key, version_id="", etag=etag, size_bytes=3, at="2026-11-28T01:00:00Z")


def test_an_event_id_leads_back_to_its_line() -> None:
    assert line_of("job", event_id("job", 17)) == 17
    others = ("job-2/17", "job", "job/x", "17", "job/", f"job/{'9' * 13}", f"job/{'9' * 5000}")
    assert [line_of("job", name) for name in others] == [None] * len(others)


def test_a_repeated_notification_asks_for_the_same_job_and_another_content_for_another() -> None:
    first, again, changed = request(), request(), request(etag="e2")

    assert first is not None
    assert first == again
    assert changed is not None
    assert changed.id != first.id


@pytest.mark.parametrize(("bucket", "key"), [("in-bucket", "out/a.jsonl"), ("other-bucket", "in/a.jsonl")])
def test_an_object_that_no_section_wants_asks_for_nothing(bucket: str, key: str) -> None:
    assert request(key, bucket) is None


def test_a_repeated_request_does_not_take_the_place_of_the_finished_job() -> None:
    asked = request()
    assert asked is not None
    job = BatchJob(
        id=asked.id, object=BatchObject(uri="x"), sha256="", source="s", type="t", event_topic="", event_starts=(),
        result_starts={}, started_at="", state="finished",
    )  # fmt: skip
    keys = [job_record(Topics(), payload).key for payload in (asked, job)]

    assert keys[0] != keys[1]
    assert [kind_of(key) for key in keys] == [BatchRequest, BatchJob]
    assert kind_of(b"foreign") is None
