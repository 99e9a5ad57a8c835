"""An event on the retry topic: into a record when it is parked, and out of it when it is taken up.

Reads: nothing. Writes: nothing; the settler produces what `parked_record` returns. See docs/adr/0011.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from contracts.codec import Position, Record, RecordHeaders, parked_event, retry_headers
from contracts.envelope import Event
from contracts.errors import OutputTruncated, Undecodable
from contracts.payloads import FailureNote, RetryNote
from streams.job import Job, make_job
from streams.steps.route import Router

_MAX_BRIEF_CHARS = 200
# Why the hand-over sends an event back whose answer the limit has cut off.
_TRUNCATED = f"batch_{OutputTruncated.reason}"
_ENDS = 2


def parked_records(
    job: Job, position: Position, not_before: datetime, reason: str, topic: str, app_id: str
) -> Iterator[Record]:
    """Yield the record that parks an event, then shorter ones, for the case that it is too large.

    Args:
        job: the event and what was tried.
        position: of the record that is answered by this one.
        not_before: when the next attempt may be made.
        reason: why it waits.
        topic: the retry topic.
        app_id: who takes it up.
    """
    origin = job.origin or position
    note = RetryNote(
        topic=origin.topic,
        partition=origin.partition,
        offset=origin.offset,
        timestamp_ms=origin.timestamp_ms,
        not_before_ms=_ms(not_before),
        deadline_ms=round(job.deadline_s * 1000),
        reason=reason,
        attempts=job.attempts,
        failed=job.failed,
        cost_usd=job.cost_usd,
        usage=job.usage,
        failures=tuple(_brief(job.failures)),
        has_retry=job.has_retry,
        replayed_ms=round(job.replayed_s * 1000),
    )
    for candidate in (note, msgspec.structs.replace(note, failures=())):
        headers = retry_headers(job.headers, candidate, app_id, position)
        yield Record(topic, job.key, job.value, headers, position.partition)


def _brief(failures: list[FailureNote]) -> list[FailureNote]:
    """Return the first and the last failure, shortened: they say most in the least room."""
    ends = failures if len(failures) < _ENDS else [failures[0], failures[-1]]
    return [msgspec.structs.replace(note, message=note.message[:_MAX_BRIEF_CHARS]) for note in ends]


def take_up(
    position: Position, key: bytes | None, value: bytes | None, headers: RecordHeaders, app_id: str, router: Router
) -> Job:
    """Return the job of a record on the retry topic; what no worker wrote is kept as a fault, for its dead letter."""
    try:
        owner, note, original = parked_event(headers)
        times_ms = (note.not_before_ms, note.deadline_ms, note.replayed_ms)
        not_before, _deadline, _replayed = (_instant(ms) for ms in times_ms)
    except Undecodable as error:
        name = f"{position.topic}/{position.partition}/{position.offset}"
        now_s = time.time()
        stand_in = Event(id=name, source="unknown", type="unknown", data=value or b"")
        return Job(key, value, headers, stand_in, now_s, now_s, None, error)
    origin = Position(note.topic, note.partition, note.offset, note.timestamp_ms)
    job = make_job(origin, key, value, original, router)
    job.deadline_s, job.replayed_s = note.deadline_ms / 1000, note.replayed_ms / 1000
    job.origin = origin
    job.not_before = not_before
    job.attempts, job.failed, job.failures = note.attempts, dict(note.failed), list(note.failures)
    job.usage, job.cost_usd, job.has_retry = note.usage, note.cost_usd, note.has_retry
    job.is_foreign = owner != app_id
    if note.reason == _TRUNCATED and job.fault is None:
        # A call would be made with the same limit, and be paid for besides. The letter has what this one has cost.
        # A fault is not for the route's breaker to judge: a job's good answers are results that no worker sees, so that
        # a few bad ones would pause single calls, and no job.
        said = job.failures[-1].message if job.failures else "the answer of the batch API ended at max_tokens"
        job.fault = OutputTruncated(said)
    return job


def _instant(unix_ms: int) -> datetime:
    try:
        return datetime.fromtimestamp(unix_ms / 1000, tz=UTC)
    except (ValueError, OverflowError, OSError) as error:
        message = f"{unix_ms} ms is no instant"
        raise Undecodable(message) from error


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
