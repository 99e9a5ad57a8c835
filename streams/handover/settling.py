"""Turns what a batch API said into records: results, or retries that the workers take up.

Reads: nothing. Writes: nothing; the service produces what comes out of here.
"""

from datetime import UTC, datetime

from contracts.batch_jobs import Asked
from contracts.codec import Record, encodable, encode_json, format_time, outcome_headers
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
from contracts.repetition import outcome_marks
from contracts.topics import Topics
from producers.log_reader import Found
from producers.window import record_bytes
from streams.handover.choosing import Reading, position_of
from streams.job import Job
from streams.parking import parked_records
from streams.providers.base import add_usage
from streams.providers.bedrock import Bedrock
from streams.providers.bedrock_jobs import Ended
from streams.steps.invoke import cost_at, without_thoughts

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

    def of(self, record: Found, job: Job, reading: Reading | None, ended: Ended, asked: Asked) -> tuple[str, Record]:
        """Return what an answered record came to, in a word, and the record that says so.

        One with an answer that is not valid goes to the workers with what it has cost.

        Args:
            record: handed over.
            job: of it.
            reading: of its route; None when it has none any more.
            ended: what was said about it.
            asked: who said it.
        """
        usage = ended.answer.usage if ended.answer is not None else ended.usage
        job.attempts += 1
        book(job, asked, usage)
        if ended.answer is None:
            assert ended.error is not None  # noqa: S101 - for the type checker: one of the two is there
            return "refused", self._again(record, job, ended.error)
        if reading is None:
            # A worker buries it, with what it has cost.
            return "unroutable", self.retry(record, job, "batch_unroutable")
        try:
            output = reading.contract.read(without_thoughts(ended.answer, reading.reasoning))
        except OutputInvalid as error:
            return "invalid", self._again(record, job, error)
        prompt = asked.prompts.get(job.route_name, reading.template.digest)
        made = self._result(record, job, prompt, ended.answer, output)
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

    def _result(self, record: Found, job: Job, prompt: str, answer: InferenceAnswer, output: object) -> Record:
        now = datetime.now(UTC)
        result = InferenceResult(
            event_id=job.event.id,
            source=job.event.source,
            type=job.event.type,
            output=output,
            provenance=Provenance(
                provider=PROVIDER,
                model=answer.model,
                route=job.route_name,
                prompt_digest=prompt,
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
        position = position_of(record)
        headers = outcome_headers(job.event, kind, completed_at, self._app_id, position)
        headers += outcome_marks(job.headers, job.origin or position, job.replayed_s)
        return Record(topic, job.key, value, headers, record.partition)


def book(job: Job, asked: Asked, usage: Usage) -> None:
    """Add a record's tokens and cost, at the price of the batch API."""
    job.usage = add_usage(job.usage, usage)
    if asked.prices_usd is None or job.cost_usd is None:
        job.cost_usd = None
        return
    job.cost_usd += cost_at(asked.prices_usd, usage) * asked.price_share
