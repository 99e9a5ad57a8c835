"""Writes an event's one outcome: result, or dead letter and its marker, or expired marker.

Writes: results, dead-letters, and a copy to replies. The terminal record goes to the partition number of its event and
is written last, so that the result topic is the journal (docs/adr/0005).
"""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from contracts.codec import (
    Headers,
    Position,
    Record,
    dead_letter_headers,
    encodable,
    encode_json,
    format_time,
    outcome_headers,
    redrive_of,
)
from contracts.envelope import TRACE_PARENT, format_unix_ms, result_id
from contracts.errors import Busy, PenstockError, TooLarge
from contracts.line_log import LineLog
from contracts.logs import logger
from contracts.metrics import DEADLINE_MISSED, DLQ_EVENTS, EVENT_AGE, EVENTS_FINISHED, PARKED, REPEATED
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    DUPLICATE_TYPE,
    EXPIRED_TYPE,
    RESULT_TYPE,
    DeadLetter,
    DuplicateMarker,
    InferenceAnswer,
    OutcomeMarker,
    Provenance,
)
from contracts.repetition import outcome_marks
from contracts.tallies import Tally
from contracts.topics import Topics
from producers.base import Ack, Delivered, Forbidden, Place, Producer
from streams.engine.calls import let_go
from streams.engine.item import ResultRef
from streams.engine.repeats import First
from streams.engine.tenure import Tenure, without_right
from streams.job import Job, nameless
from streams.outcome import Bury, Expire
from streams.parking import parked_records
from streams.replies import Replies
from streams.staged import Patience, Result, Silent, Stale, Unheard, each

_MAX_TEXT_CHARS = 2000
_MAX_ANSWER_CHARS = 16_000
_MAX_BRIEF_CHARS = 200
_finished = Tally(EVENTS_FINISHED, EVENT_AGE)
_ENDS = 2


class Settler:
    """Writes outcomes.

    Args:
        producer: confirmed records.
        topics: the table.
        app_id: who makes the outcomes.

    Attributes:
        lines: of the results; whoever ends the process flushes them.
    """

    def __init__(self, producer: Producer, topics: Topics, app_id: str) -> None:
        self._producer = producer
        self._topics = topics
        self._app_id = app_id
        self._replies = Replies(producer, topics.replies)
        self._log = logger("worker")
        self._results: list[Result] = []
        self._unheard = Unheard(producer)
        self._patience = Patience(self._unheard)
        self.lines = LineLog("worker", lambda after_s, call: asyncio.get_running_loop().call_later(after_s, call))

    async def result(
        self, job: Job, position: Position, tenure: Tenure, answer: InferenceAnswer, output: Any, provenance: Provenance
    ) -> ResultRef:
        """Write a result; one that is too large for a record, or nested too deeply, becomes a dead letter.

        Raises:
            LogUnavailable: the broker did not confirm it.
            TenureLostError: the partition was given up.
        """
        return await self.settled(Result(job, position, tenure, answer, output, provenance))

    async def settled(self, result: Result, refused: Exception | None = None) -> ResultRef:
        """Write a result as `result` does, or go on with one that was posted.

        Args:
            result: what to write.
            refused: what its ack got in place of a position.
        """
        try:
            delivered = await self._staged(result, refused)
        except TooLarge as error:
            let_go(error)
            return await self.bury(result.job, result.position, result.tenure, Bury(error.reason, "poison"), error)
        self.confirmed(result)
        return ResultRef(delivered.topic, delivered.offset)

    def confirmed(self, result: Result) -> None:
        """Tell who waits for a result that it is on the log."""
        self._replies.copy(result.job.event, result.record)
        self._finished(result.job, result.position, "result")

    async def _staged(self, result: Result, refused: Exception | None) -> Delivered:
        loop = asyncio.get_running_loop()
        while True:
            if refused is not None:
                await self._patience.after(refused)
            if not result.tenure.may_work:
                await result.tenure.permission()
            ack: asyncio.Future[Delivered] = loop.create_future()
            self.post(result, ack)
            try:
                return await ack
            except (Busy, Forbidden, Silent, Stale) as error:
                # Its traceback names this frame, which names it: see streams.engine.calls.let_go.
                refused = error.with_traceback(None)

    def post(self, result: Result, ack: Ack) -> None:
        """Have a result written with the others of this turn of the loop; the ack may get what `settled` sees to."""
        result.ack = ack
        if not self._results:
            asyncio.get_running_loop().call_soon(self._write)
        self._results.append(result)

    def _write(self) -> None:
        """Write the results that have come together, step by step for all of them.

        One after the other they would cost more than twice as much: each step would find the processor's caches full of
        the others' code (docs/adr/0028).
        """
        posted, self._results = self._results, []
        # The others were cut off meanwhile.
        results = [result for result in posted if not result.ack.done()]
        if silent := self._unheard.silent():
            results = each(results, self._hold_back, silent)
        now_ns = time.time_ns()
        now = format_unix_ms(now_ns // 1_000_000)
        results = each(results, Result.encode, now_ns / 1e9, now, without_right({one.tenure for one in results}))
        results = each(results, self._address, now)
        each(results, self._post)

    def _hold_back(self, result: Result, silent: frozenset[Place]) -> None:
        place = self._topic(result.job), result.position.partition
        if place in silent:
            raise Silent(place)

    def _address(self, result: Result, now: str) -> None:
        job, position = result.job, result.position
        headers = self._outcome_headers(job, position, RESULT_TYPE, now)
        result.record = Record(self._topic(job), job.key, result.value, headers, position.partition)

    def _post(self, result: Result) -> None:
        self._producer.post(result.record, result.ack)

    async def bury(self, job: Job, position: Position, tenure: Tenure, end: Bury, error: PenstockError) -> ResultRef:
        """Write the dead letter, original bytes and headers untouched, then its marker.

        Raises:
            LogUnavailable: the broker did not confirm one of them.
            TenureLostError: the partition was given up.
        """
        now = format_time(datetime.now(UTC))
        origin = job.origin or position
        letter = DeadLetter(
            reason=end.reason,
            disposition=end.disposition,
            message=encodable(str(error))[:_MAX_TEXT_CHARS],
            attempts=job.attempts,
            route=job.route_name,
            topic=origin.topic,
            partition=origin.partition,
            offset=origin.offset,
            failed_at=now,
            failures=tuple(job.failures),
            answer=encodable(str(getattr(error, "answer", "")))[:_MAX_ANSWER_CHARS],
            cost_usd=job.cost_usd,
            redrives=redrive.count if (redrive := redrive_of(job.headers)) else 0,
            timestamp_ms=origin.timestamp_ms,
            traceparent=job.event.extensions.get(TRACE_PARENT, ""),
            app_id=self._app_id,
        )
        message = letter.message
        if not await self._dead_letter(job, letter, tenure):
            message += f"; the record at {_name(origin)} is too large to be copied to the dead letters"
        ref = await self._marker(job, position, tenure, "dead_letter", end.reason, message)
        DLQ_EVENTS.labels(job.route_name, end.reason).inc()
        told = encodable(error.for_log)[:_MAX_TEXT_CHARS]
        self._finished(job, position, "dead_letter", reason=end.reason, error=told)
        return ref

    async def spill(self, job: Job, position: Position, tenure: Tenure) -> ResultRef | None:
        """Put an event on the hand-over topic, for the provider's batch API; that record stands for it from now on.

        Returns:
            None when it does not fit a record with what belongs to it.

        Raises:
            LogUnavailable: the broker did not confirm it.
            TenureLostError: the partition was given up.
        """
        now = datetime.now(UTC)
        return await self.park(job, position, tenure, now, "spilled", topic=self._topics.handovers)

    async def park(
        self,
        job: Job,
        position: Position,
        tenure: Tenure,
        not_before: datetime,
        reason: str,
        *,
        topic: str | None = None,
    ) -> ResultRef | None:
        """Put an event on the retry topic, where it waits for its next attempt; that record stands for it from now on.

        Returns:
            None when it does not fit a record with what belongs to it.

        Raises:
            LogUnavailable: the broker did not confirm it.
            TenureLostError: the partition was given up.
        """
        for record in parked_records(job, position, not_before, reason, topic or self._topics.retries, self._app_id):
            with contextlib.suppress(TooLarge):
                delivered = await self._produce(record, tenure)
                PARKED.labels(job.route_name, reason).inc()
                self._log.info(
                    "event.parked",
                    event_id=job.event.id,
                    route=job.route_name,
                    reason=reason,
                    attempts=job.attempts,
                    wait_s=round((not_before - datetime.now(UTC)).total_seconds(), 3),
                )
                return ResultRef(delivered.topic, delivered.offset)
        return None

    async def _dead_letter(self, job: Job, letter: DeadLetter, tenure: Tenure) -> bool:
        """Write the dead letter, shorter where it would be too large for a record; tell whether it fits."""
        # The first and the last error say most in the least room.
        ends = letter.failures if len(letter.failures) < _ENDS else (letter.failures[0], letter.failures[-1])
        brief = tuple(msgspec.structs.replace(note, message=note.message[:_MAX_BRIEF_CHARS]) for note in ends)
        shorter = msgspec.structs.replace(letter, answer="", failures=brief, message=letter.message[:_MAX_BRIEF_CHARS])
        bare = msgspec.structs.replace(letter, answer="", failures=(), message="", traceparent="")
        for candidate in (letter, shorter, bare):
            headers = dead_letter_headers(job.headers, candidate)
            with contextlib.suppress(TooLarge):
                await self._produce(Record(self._topics.dead_letters, job.key, job.value, headers), tenure)
                return True
        return False

    async def expire(self, job: Job, position: Position, tenure: Tenure, end: Expire) -> ResultRef:
        """Write the expired marker.

        Raises:
            LogUnavailable: the broker did not confirm it.
            TenureLostError: the partition was given up.
        """
        text = f"deadline {format_time(job.deadline_at)} passed or cannot be met, {job.attempts} attempts"
        if job.failures:
            text += f", last failure {job.failures[-1].reason}: {job.failures[-1].message}"
        ref = await self._marker(job, position, tenure, "expired", end.reason, text)
        DEADLINE_MISSED.labels(job.route_name, "in_retry" if job.attempts else "before_call").inc()
        self._finished(job, position, "expired", reason=end.reason)
        return ref

    async def duplicate(self, job: Job, position: Position, tenure: Tenure, first: First) -> ResultRef:
        """Write the marker of an event that repeats another one; no copy goes to who waits, for the outcome is to come.

        Raises:
            LogUnavailable: the broker did not confirm it.
            TenureLostError: the partition was given up.
        """
        try:
            delivered = await self._produce(self._repetition(job, position, first), tenure)
        except TooLarge:
            first = first._replace(event_id=_name(position._replace(offset=first.offset)))
            delivered = await self._produce(self._repetition(nameless(job, position), position, first), tenure)
        REPEATED.labels(job.route_name).inc()
        self._finished(job, position, "duplicate", detail=f"repeats offset {first.offset}")
        return ResultRef(delivered.topic, delivered.offset)

    def _repetition(self, job: Job, position: Position, first: First) -> Record:
        event, now = job.event, format_time(datetime.now(UTC))
        marker = DuplicateMarker(
            event_id=event.id,
            source=event.source,
            type=event.type,
            first_event_id=first.event_id or event.id,
            topic=position.topic,
            partition=position.partition,
            offset=first.offset,
            timestamp_ms=first.timestamp_ms,
            completed_at=now,
        )
        headers = outcome_headers(event, DUPLICATE_TYPE, now, self._app_id, position)
        own_id = result_id(event.source, f"{event.id}\n{_name(position)}").encode()
        headers = [(name, own_id if name == "ce_id" else raw) for name, raw in headers]
        return Record(self._topic(job), job.key, encode_json(marker), headers, position.partition)

    async def _marker(
        self, job: Job, position: Position, tenure: Tenure, status: Any, reason: str, message: str
    ) -> ResultRef:
        now = format_time(datetime.now(UTC))
        kind = EXPIRED_TYPE if status == "expired" else DEAD_LETTER_MARKER_TYPE
        marker = OutcomeMarker(
            event_id=job.event.id,
            source=job.event.source,
            type=job.event.type,
            status=status,
            reason=reason,
            attempts=job.attempts,
            completed_at=now,
            message=message,
        )
        try:
            return await self._terminal(job, position, tenure, kind, encode_json(marker), now)
        except TooLarge:
            job = nameless(job, position)
            name, unknown = job.event.id, job.event.source
            marker = msgspec.structs.replace(
                marker, event_id=name, source=unknown, type=unknown, message=message[:_MAX_BRIEF_CHARS]
            )
            return await self._terminal(job, position, tenure, kind, encode_json(marker), now)

    async def _terminal(
        self, job: Job, position: Position, tenure: Tenure, kind: str, value: bytes, completed_at: str
    ) -> ResultRef:
        headers = self._outcome_headers(job, position, kind, completed_at)
        record = Record(self._topic(job), job.key, value, headers, position.partition)
        delivered = await self._produce(record, tenure)
        self._replies.copy(job.event, record)
        return ResultRef(delivered.topic, delivered.offset)

    def _topic(self, job: Job) -> str:
        return (job.route.output_topic if job.route else None) or self._topics.results

    def _outcome_headers(self, job: Job, position: Position, kind: str, completed_at: str) -> Headers:
        headers = outcome_headers(job.event, kind, completed_at, self._app_id, position)
        return headers + outcome_marks(job.headers, job.origin or position, job.replayed_s)

    async def _produce(self, record: Record, tenure: Tenure) -> Delivered:
        while True:
            if not tenure.may_work:
                await tenure.permission()
            place = record.topic, record.partition
            if place in self._unheard:
                await self._unheard.heard(place)
                continue
            try:
                return await self._producer.produce(record)
            except (Busy, Forbidden) as refused:
                await self._patience.after(refused)

    def _finished(self, job: Job, position: Position, outcome: str, **fields: Any) -> None:
        age_s = time.time() - job.accepted_s
        route = job.route_name
        _finished[route, outcome].append(max(0.0, age_s))
        line = {
            "event_id": job.event.id,
            "source": job.event.source,
            "route": route,
            "outcome": outcome,
            "attempts": job.attempts,
            "age_s": round(age_s, 3),
            "topic": position.topic,
            "partition": position.partition,
            "offset": position.offset,
            "cost_usd": job.cost_usd,
            **fields,
        }
        if outcome == "result":
            self.lines.write("event.finished", "info", line)
        elif outcome == "duplicate":
            self._log.info("event.finished", **line)
        else:
            self._log.warning("event.finished", **line)


def _name(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"
