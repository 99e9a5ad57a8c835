"""A job that is begun again, before anything is sent."""

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from contracts.batch_jobs import BatchJob, BatchObject
from contracts.errors import InvalidPayload
from contracts.settings import build, parse
from gateways.batch import submitting
from gateways.batch.jobs import Jobs
from gateways.batch.lines import Line, fingerprint
from gateways.batch.submitting import Submission, wanted_job
from producers.fenced import FencedProducer

SETTINGS = build(parse("version: 1", "x"), {}, Path())


class Producer:
    """Stands in for the job's producer; it writes to a list."""

    def __init__(self) -> None:
        self.written: list[Any] = []

    def take_over(self) -> None:
        pass

    def write(self, records: list[Any]) -> None:
        self.written += records


def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_asked: bool, **now: str) -> tuple[BatchJob, Producer]:
    """Begin a job again that was begun with the defaults and a key; return it, and what it wrote."""
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    asked = {"source": "batch", "kind": "t", "partition_key": "/k"}
    job = wanted_job("nightly", BatchObject(uri=str(path)), **asked)
    jobs = Jobs()
    known = msgspec.structs.replace(job, sha256=fingerprint(path)[0], event_topic="penstock.events.bulk.v1")
    jobs.jobs[job.id] = known
    monkeypatch.setattr(submitting, "read_jobs", lambda *_: jobs)
    producer = Producer()
    wanted = wanted_job("nightly", BatchObject(uri=str(path)), **asked | now)
    fenced = cast("FencedProducer", producer)
    return Submission(SETTINGS, wanted, path, fenced, as_asked=as_asked).begin(), producer


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"source": "other"}, "--source: batch, not other"),
        ({"kind": "u"}, "--type: t, not u"),
        ({"record_id": "/id"}, "--record-id: none, not /id"),
        ({"partition_key": ""}, "--key: /k, not none"),
        ({"event_topic": "handovers"}, r"topic \(--hand-over\): penstock.events.bulk.v1, not handovers"),
    ],
)
def test_a_job_that_was_begun_otherwise_is_refused_to_who_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: dict[str, str], said: str
) -> None:
    """Its lines would go where they went before, whatever the command says."""
    with pytest.raises(InvalidPayload, match=f"^job nightly was begun with another {said}$"):
        begin(tmp_path, monkeypatch, as_asked=True, **now)


def test_a_job_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`batch serve` asks with the settings of today, which may be others than when the job began."""
    for as_asked, now in [(True, {"expires_at": "2026-11-30T00:00:00Z"}), (False, {"source": "other"})]:
        job, producer = begin(tmp_path, monkeypatch, as_asked=as_asked, **now)

        assert (job.source, job.expires_at, len(producer.written)) == ("batch", "", 1)


def test_lines_go_out_in_groups_that_a_transaction_has_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 lines of a megabyte each it is aborted before they are there, and the job is taken for another's."""
    monkeypatch.setattr(submitting, "_GROUP", 4)
    monkeypatch.setattr(submitting, "_GROUP_BYTES", 1500)
    sizes = [1000, 1000, 10, 10, 10, 10, 10, 9000]
    lines = [Line(number, b"x" * size, "") for number, size in enumerate(sizes)]

    assert [[len(line.raw) for line in group] for group in submitting._groups(lines)] == [
        [1000, 1000], [10, 10, 10, 10], [10, 9000],
    ]  # fmt: skip
