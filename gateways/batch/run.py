"""One batch job from input to output, in steps that can each be done again: submit, follow, write.

Reads: batch-jobs, events, result topics. Writes: batch-jobs, events. Blocking: until the job is over, or stopped.
"""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from contracts.batch_jobs import BatchJob, job_record
from contracts.envelope import format_time, parse_time
from contracts.errors import InvalidPayload, LogUnavailable
from contracts.settings import RouteSettings, Settings
from contracts.topics import Topics
from gateways.batch.jobs import read_jobs
from gateways.batch.joining import join
from gateways.batch.objects import Objects
from gateways.batch.outcomes import Outcomes
from gateways.batch.submitting import Advance, Submission, lines_of
from producers.fenced import FencedProducer
from producers.log_reader import LogReader

_POLL_S = 0.5
# Behind a deadline: an attempt that ends at it, and clocks that differ.
_LATE_S = 60.0


def _quiet(_: int) -> None:
    """Tell nobody."""


class JobRun:
    """What is done with one job.

    Args:
        settings: the whole configuration.
        objects: where inputs come from and results go.
        is_stopped: ends every step early when it says so.
    """

    def __init__(self, settings: Settings, objects: Objects, is_stopped: Callable[[], bool] = lambda: False) -> None:
        self._settings = settings
        self._objects = objects
        self._is_stopped = is_stopped

    def submit(
        self,
        wanted: BatchJob,
        path: Path,
        advance: Advance = _quiet,
        known: BatchJob | None = None,
        *,
        as_asked: bool = False,
    ) -> BatchJob:
        """Put every line on the log that is not there yet; `known` and `as_asked` as for Submission.

        Raises:
            TakenOver: another process works on this job.
            InvalidPayload: the job cannot be gone on with.
            LogUnavailable: Kafka does not do what is needed.
        """
        producer = self._producer(wanted.id)
        try:
            submission = Submission(self._settings, wanted, path, producer, self._is_stopped, known, as_asked=as_asked)
            return submission.send(submission.begin(), advance)
        finally:
            producer.close()

    def follow(
        self,
        job: BatchJob,
        outcomes: Outcomes,
        advance: Advance = _quiet,
        *,
        wait: bool = True,
        partial: bool = False,
    ) -> bool:
        """Gather outcomes until every line has one, or with `wait` off, what there is; tell whether that is all.

        With `partial`, outcomes that can come no more are not waited for either.

        Raises:
            InvalidPayload: with `wait`: every line has had its time, and the result topics may have forgotten the
                outcomes that are missing, so that it would be for ever.
            LogUnavailable: the result topics cannot be read.
        """
        needed = job.lines - job.rejected
        with LogReader(self._settings.kafka, self._is_stopped) as reader:
            reader.begin(job.result_starts, job.result_logs)
            if not wait:
                for_end = reader.to_the_end()
                while group := _some(for_end):
                    advance(outcomes.take(group))
                return job.state != "submitting" and outcomes.count >= needed
            over_s, shortened = self._over_s(job), reader.shortened - self._others(job)
            is_last_look = False
            while outcomes.count < needed and not self._is_stopped():
                advance(outcomes.take(reader.poll(_POLL_S)))
                if shortened and reader.at_end and time.time() >= over_s and outcomes.count < needed:
                    if is_last_look:
                        if partial:
                            return False
                        left, topics = needed - outcomes.count, ", ".join(sorted(shortened))
                        message = (
                            f"job {job.id}: {left} lines have no outcome any more: {topics} kept them for a while "
                            f"only; `penstock batch results {job.id} --partial` writes the others"
                        )
                        raise InvalidPayload(message)
                    # Whatever has come since it began to read, also while brokers were away.
                    with contextlib.suppress(LogUnavailable):
                        reader.to_now()
                        is_last_look = True
                reader.widen()
        return outcomes.count >= needed

    def _over_s(self, job: BatchJob) -> float:
        """Return when each line of a job has had its time, Unix seconds; longer when nobody works on them."""
        submitted_at, expires_at = parse_time(job.submitted_at), parse_time(job.expires_at)
        mine = (route.deadline_s for route in self._settings.routes if takes(route, job.source, job.type))
        over_s = (submitted_at.timestamp() if submitted_at else time.time()) + max(mine, default=0.0)
        return (min(over_s, expires_at.timestamp()) if expires_at else over_s) + _LATE_S

    def _others(self, job: BatchJob) -> set[str]:
        """Return the result topics of routes that do not take the job's events."""
        takes_it: dict[bool, set[str]] = {True: {Topics(self._settings.kafka.topic_prefix).results}, False: set()}
        for route in self._settings.routes:
            if route.output_topic:
                takes_it[takes(route, job.source, job.type)].add(route.output_topic)
        return takes_it[False] - takes_it[True]

    def write(
        self, job: BatchJob, path: Path, outcomes: Outcomes, folder: Path, uris: dict[str, str]
    ) -> dict[str, Any]:
        """Join, put the files in place, and note on the log that the job is finished; return the manifest.

        Raises:
            InvalidPayload, AccessDenied, Retryable: the files cannot be put there.
            LogUnavailable: it could not be noted.
        """
        job = msgspec.structs.replace(job, ended_at=job.ended_at or format_time(datetime.now(UTC)), outputs=uris)
        manifest = join(job, lines_of(self._settings, job, path), outcomes, folder, uris)
        self._objects.put(folder, uris)
        if manifest["is_complete"]:
            self.note(msgspec.structs.replace(job, state="finished"))
        return manifest

    def fail(self, wanted: BatchJob, message: str) -> None:
        """Note that a job cannot be done; what the log knows of it stays, so that its answers can still be fetched.

        Raises:
            LogUnavailable: it could not be noted.
        """
        job = read_jobs(self._settings.kafka, self._is_stopped).jobs.get(wanted.id, wanted)
        if not job.is_over:
            now = format_time(datetime.now(UTC))
            self.note(
                msgspec.structs.replace(
                    job, state="failed", message=message, started_at=job.started_at or now, ended_at=now
                )
            )

    def note(self, job: BatchJob) -> None:
        """Write a job's state to the log.

        Raises:
            LogUnavailable: not confirmed.
        """
        # A name of its own: who only notes an end takes no job over.
        producer = self._producer(f"{job.id}.end")
        try:
            producer.take_over()
            producer.write([job_record(Topics(self._settings.kafka.topic_prefix), job)])
        finally:
            producer.close()

    def _producer(self, name: str) -> FencedProducer:
        prefix = self._settings.kafka.topic_prefix
        name = f"{prefix}.batch.{name}"
        return FencedProducer(self._settings.kafka, self._settings.producer, name, self._is_stopped)


def takes(route: RouteSettings, source: str, kind: str) -> bool:
    """Tell whether a route matches events of a source and type; an earlier one may take them."""
    return any(fnmatchcase(source, one) for one in route.match.source) and any(
        fnmatchcase(kind, one) for one in route.match.type
    )


def _some(records: Any, limit: int = 500, patience_s: float = 0.5) -> list[Any]:
    """Return the next records of an iterator, a bounded number."""
    found = []
    end_s = time.monotonic() + patience_s
    for record in records:
        found.append(record)
        if len(found) >= limit or time.monotonic() > end_s:
            break
    return found
