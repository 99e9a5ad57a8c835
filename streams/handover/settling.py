"""Turns what a batch API said into records: results, or retries that the workers take up.

Reads: nothing. Writes: nothing; the service produces what comes out of here.
"""

from datetime import UTC, datetime

import msgspec

from contracts.codec import REDRIVE, Record, encodable, encode_json, format_time, outcome_headers, redrive_of
from contracts.errors import OutputInvalid, PenstockError
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    RESULT_TYPE,
    FailureNote,
    InferenceAnswer,
    InferenceResult,
    OutcomeMarker,
    Provenance,
    Usage,
)
from contracts.topics import Topics
from producers.log_reader import Found
from producers.window import record_bytes
from streams.handover.choosing import Way, position_of
from streams.job import Job
from streams.parking import parked_records
from streams.providers.base import add_usage
from streams.providers.bedrock import Bedrock
from streams.providers.bedrock_jobs import Ended
from streams.steps.invoke import cost_usd

PROVIDER = Bedrock.name
_MAX_TEXT_CHARS = 500


class Outcomes:
    """Makes the record that answers a record of the hand-over topic.

    Args:
        topics: the table.
        app_id: who makes it.
        max_bytes: of a record.
    """

    def __init__(self, topics: Topics, app_id: str, max_bytes: int) -> None:
        self._topics = topics
        self._app_id = app_id
        self._max_bytes = max_bytes

    def of(self, record: Found, job: Job, way: Way, ended: Ended | None) -> tuple[str, Record]:
        """Return what a handed-over record came to, in a word, and the record that says so.

        A record without an answer, or with one that is not valid, goes to the workers with what it has cost.
        """
        if ended is None:
            return "unanswered", self.retry(record, job, "batch_unanswered")
        usage = ended.answer.usage if ended.answer is not None else ended.usage
        job.attempts += 1
        book(job, way, usage)
        if ended.answer is None:
            assert ended.error is not None  # noqa: S101 - for the type checker: one of the two is there
            return "refused", self._again(record, job, ended.error)
        try:
            output = way.contract.check(ended.answer.text)
        except OutputInvalid as error:
            return "invalid", self._again(record, job, error)
        made = self._result(record, job, way, ended.answer, output)
        if record_bytes(made) > self._max_bytes:
            return "too_large", self.retry(record, job, "batch_too_large")
        return "succeeded", made

    def _again(self, record: Found, job: Job, error: PenstockError) -> Record:
        note = FailureNote(
            attempt=job.attempts,
            reason=error.reason,
            message=encodable(str(error))[:_MAX_TEXT_CHARS],
            at=format_time(datetime.now(UTC)),
            possibly_billed=bool(getattr(error, "possibly_billed", False)),
        )
        job.failures.append(note)
        return self.retry(record, job, f"batch_{error.reason}")

    def retry(self, record: Found, job: Job, reason: str) -> Record:
        """Return the record on the retry topic by which the workers take it up, at once."""
        now = datetime.now(UTC)
        for made in parked_records(job, position_of(record), now, reason, self._topics.retries, self._app_id):
            if record_bytes(made) <= self._max_bytes:
                return made
        marker = OutcomeMarker(
            event_id=job.event.id,
            source=job.event.source,
            type=job.event.type,
            status="dead_letter",
            reason="too_large",
            attempts=job.attempts,
            completed_at=format_time(now),
            message="with our headers it does not fit a record of the retry topic",
        )
        return self._terminal(record, job, DEAD_LETTER_MARKER_TYPE, encode_json(marker), marker.completed_at)

    def _result(self, record: Found, job: Job, way: Way, answer: InferenceAnswer, output: object) -> Record:
        now = datetime.now(UTC)
        result = InferenceResult(
            event_id=job.event.id,
            source=job.event.source,
            type=job.event.type,
            output=output,
            provenance=Provenance(
                provider=PROVIDER,
                model=answer.model,
                route=way.route.name,
                prompt_digest=way.template.digest,
                response_id=answer.response_id,
            ),
            usage=job.usage,
            attempts=job.attempts,
            completed_at=format_time(now),
            duration_s=round((now - job.accepted_at).total_seconds(), 3),
            finish_reason=answer.finish_reason,
            cost_usd=job.cost_usd,
        )
        return self._terminal(record, job, RESULT_TYPE, encode_json(result), result.completed_at)

    def _terminal(self, record: Found, job: Job, kind: str, value: bytes, completed_at: str) -> Record:
        topic = (job.route.output_topic if job.route else None) or self._topics.results
        headers = outcome_headers(job.event, kind, completed_at, self._app_id, position_of(record))
        if redrive := redrive_of(job.headers):
            headers.append((REDRIVE, encode_json(msgspec.structs.replace(redrive, by=redrive.by[:200]))))
        return Record(topic, job.key, value, headers, record.partition)


def book(job: Job, way: Way, usage: Usage) -> None:
    """Add a record's tokens and cost, at the price of the batch API."""
    job.usage = add_usage(job.usage, usage)
    cost = cost_usd(usage, way.model)
    known = cost is not None and job.cost_usd is not None
    job.cost_usd = (job.cost_usd or 0.0) + (cost or 0.0) * way.batch.price_share if known else None
