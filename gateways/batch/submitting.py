"""Puts the lines of an input on the bulk lane, each once, however often it is interrupted.

Reads: batch-jobs, events. Writes: batch-jobs, events. Blocking: until all lines are confirmed.
See: docs/adr/0014.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from contracts.batch_jobs import BATCH_JOB, BatchJob, BatchObject, event_id, job_record, line_of
from contracts.codec import Record, encode_event
from contracts.envelope import DELIVERY, EXPIRY_TIME, PARTITION_KEY, Event, format_time
from contracts.errors import InvalidPayload, LogUnavailable, TooLarge
from contracts.settings import Settings
from contracts.topics import Topics
from gateways.batch.jobs import read_jobs
from gateways.batch.lines import Line, Lines, fingerprint
from producers.fenced import FencedProducer
from producers.log_reader import LogReader
from producers.window import record_bytes

# Of one transaction; its commit costs some 10 ms, and an interrupted one is at most so many records. It has 15 s, also
# through a slow network.
_GROUP, _GROUP_BYTES = 500, 8 * 2**20
# A line has headers around it: room for ids, source and type of usual length.
_HEADER_BYTES = 4096
_LANE = "bulk"
_CONFIRM_EVERY_S = 5.0
# What becomes of the lines depends on these; the time at which they expire is another one at every call.
_OPTIONS = {
    "source": "--source", "type": "--type", "record_id": "--record-id", "partition_key": "--key",
    "event_topic": "topic (--hand-over)",
}  # fmt: skip

Advance = Callable[[int], None]


def wanted_job(
    job_id: str,
    origin: BatchObject,
    *,
    source: str,
    kind: str,
    record_id: str = "",
    partition_key: str = "",
    expires_at: str = "",
    event_topic: str = "",
) -> BatchJob:
    """Return a job as it is asked for; where it lies on the log is filled in when it begins.

    Args:
        job_id: letters, digits, dots, dashes, underscores.
        origin: the input.
        source: of the events.
        kind: CloudEvents type of the events.
        record_id: JSON pointer to a line's own id; empty = none.
        partition_key: JSON pointer to what keeps lines in order; empty = no order.
        expires_at: RFC 3339; empty = the route's deadline alone.
        event_topic: where the events go; the bulk lane when empty.
    """
    return BatchJob(
        id=job_id,
        object=origin,
        sha256="",
        source=source,
        type=kind,
        event_topic=event_topic,
        event_starts=(),
        result_starts={},
        started_at="",
        record_id=record_id,
        partition_key=partition_key,
        expires_at=expires_at,
    )


def lines_of(settings: Settings, job: BatchJob, path: Path) -> Lines:
    """Return the input's lines, read as the job reads them."""
    limit_bytes = max(1, settings.producer.max_record_bytes - _HEADER_BYTES)
    return Lines(path, job.record_id, job.partition_key, limit_bytes)


class Submission:
    """One job on its way to the log; another process that begins the same job ends this one.

    Args:
        settings: the whole configuration.
        job: as it is asked for.
        path: of the input.
        producer: under the job's own name.
        is_stopped: asked between groups of lines, and while Kafka does not answer.
        known: what is known of the job without the jobs topic, which may have been made anew under it.
        as_asked: refuse to go on with a job that was begun otherwise than it is asked for now.
    """

    def __init__(
        self,
        settings: Settings,
        job: BatchJob,
        path: Path,
        producer: FencedProducer,
        is_stopped: Callable[[], bool] = lambda: False,
        known: BatchJob | None = None,
        *,
        as_asked: bool = False,
    ) -> None:
        self._settings = settings
        self._as_asked = as_asked
        self._known = known
        # Of the input; known once it was begun.
        self._most_lines = 0
        self._topics = Topics(settings.kafka.topic_prefix)
        self._wanted = job
        self._path = path
        self._producer = producer
        self._is_stopped = is_stopped

    def begin(self) -> BatchJob:
        """Take the job over from whoever had it, and return it as it is on the log.

        Raises:
            InvalidPayload: a job of this id has another input or, with `as_asked`, other options, or its events are
                gone from the log.
            LogUnavailable: Kafka does not do what is needed.
        """
        sha256, size_bytes, self._most_lines = fingerprint(self._path)
        self._producer.take_over()
        told = read_jobs(self._settings.kafka, self._is_stopped).jobs.get(self._wanted.id)
        known = told or self._known
        if known is None:
            with LogReader(self._settings.kafka, self._is_stopped) as reader:
                job = self._placed(reader, sha256, size_bytes)
        elif known.sha256 != sha256:
            message = (
                f"job {known.id} was begun with another input ({known.object.uri}, SHA-256 {known.sha256[:12]}...)"
            )
            raise InvalidPayload(message)
        else:
            self._compare_options(known)
            job = known
        if job.state == "submitting" or told is None:
            self._producer.write([job_record(self._topics, job)])
        return job

    def _compare_options(self, known: BatchJob) -> None:
        """Return when a job was begun as it is asked for, or that is of no account."""
        asked = msgspec.structs.replace(
            self._wanted, event_topic=self._wanted.event_topic or self._topics.events(_LANE)
        )
        for name, option in _OPTIONS.items():
            if self._as_asked and (was := getattr(known, name)) != (now := getattr(asked, name)):
                message = f"job {known.id} was begun with another {option}: {was or 'none'}, not {now or 'none'}"
                raise InvalidPayload(message)

    def _placed(self, reader: LogReader, sha256: str, size_bytes: int) -> BatchJob:
        event_topic = self._wanted.event_topic or self._topics.events(_LANE)
        results = sorted(self._topics.result_topics(route.output_topic for route in self._settings.routes))
        logs = reader.logs([event_topic, *results])
        return msgspec.structs.replace(
            self._wanted,
            object=msgspec.structs.replace(self._wanted.object, size_bytes=size_bytes),
            sha256=sha256,
            event_topic=event_topic,
            event_starts=reader.ends(event_topic),
            result_starts={topic: reader.ends(topic) for topic in results},
            result_logs={topic: logs[topic] for topic in results if topic in logs},
            event_log=logs.get(event_topic, ""),
            started_at=format_time(datetime.now(UTC)),
        )

    def send(self, job: BatchJob, advance: Advance = lambda _: None) -> BatchJob:
        """Produce what is not on the log yet; return the job with all its lines there.

        Raises:
            TakenOver: another process works on this job.
            InvalidPayload: its events are gone from the log, or their topic was made anew, so that nobody can say which
                are missing.
            LogUnavailable: Kafka does not do what is needed; the same call goes on later.
        """
        if job.state != "submitting":
            return job
        sent = self._sent(job)
        lines = rejected = 0
        confirm_at_s = time.monotonic() + _CONFIRM_EVERY_S
        for group in _groups(lines_of(self._settings, job, self._path)):
            if self._is_stopped():
                return job
            lines += len(group)
            rejected += sum(bool(line.fault) for line in group)
            new = list(self._records(job, (line for line in group if not line.fault and line.number not in sent)))
            if new:
                self._producer.write(new)
            advance(len(group))
            if time.monotonic() >= confirm_at_s:
                self._confirm(job)
                confirm_at_s = time.monotonic() + _CONFIRM_EVERY_S
        # Nothing of what is called submitted lies on a former log.
        self._confirm(job)
        job = msgspec.structs.replace(
            job, state="submitted", lines=lines, rejected=rejected, submitted_at=format_time(datetime.now(UTC))
        )
        self._producer.write([job_record(self._topics, job)])
        return job

    def _sent(self, job: BatchJob) -> "_Numbers":
        """Return which lines are on the log already."""
        sent = _Numbers()
        with LogReader(self._settings.kafka, self._is_stopped) as reader:
            spans = reader.spans(job.event_topic)
            known = zip(spans, job.event_starts, strict=False)
            if any(begins > start and end > start for (begins, end), start in known):
                message = f"job {job.id}: its events are older than {job.event_topic} keeps them; begin a new job"
                raise InvalidPayload(message)
            reader.begin({job.event_topic: job.event_starts})
            mine = {"ce_source": job.source.encode(), f"ce_{BATCH_JOB}": job.id.encode()}
            for record in reader.to_the_end():
                line = line_of(job.id, record.headers.get("ce_id", b"").decode(errors="replace"))
                # Others choose their events' ids themselves: one that is named like a line of ours is none.
                if line is not None and line <= self._most_lines and mine.items() <= record.headers.items():
                    sent.add(line)
            # Afterwards: whatever was read was of this log.
            self._compare(job, reader)
        return sent

    def _confirm(self, job: BatchJob) -> None:
        if job.event_log:
            with LogReader(self._settings.kafka, self._is_stopped) as reader:
                self._compare(job, reader)

    def _compare(self, job: BatchJob, reader: LogReader) -> None:
        """Return when the job's event topic is the log that it was begun on.

        Workers may have answered lines of the former log, so that nobody can say which are to be sent again.
        """
        if not job.event_log:
            return
        log = reader.logs([job.event_topic]).get(job.event_topic)
        if log is None:
            message = f"Kafka does not say whether {job.event_topic} was made anew"
            raise LogUnavailable(message)
        if log != job.event_log:
            message = f"job {job.id}: {job.event_topic} was made anew under it, its events are gone; begin a new job"
            raise InvalidPayload(message)

    def _records(self, job: BatchJob, lines: Iterator[Line]) -> Iterator[Record]:
        partitions = len(job.event_starts)
        for line in lines:
            event = _event(job, line)
            # Without a key the line number spreads the lines evenly, and the same way after a crash.
            partition = line.number % partitions if line.key is None else None
            record = Record(job.event_topic, line.key, line.raw, encode_event(event), partition)
            if record_bytes(record) > self._settings.producer.max_record_bytes:
                message = f"line {line.number}: its id, source, type and key need more than {_HEADER_BYTES} bytes"
                raise TooLarge(message)
            yield record


def _groups(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines in groups of a bounded number and size; a longer line is a group of its own."""
    group, size_bytes = list[Line](), 0
    for line in lines:
        group.append(line)
        size_bytes += len(line.raw)
        if len(group) >= _GROUP or size_bytes >= _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _event(job: BatchJob, line: Line) -> Event:
    extensions = {DELIVERY: "batch", BATCH_JOB: job.id}
    if line.key is not None:
        extensions[PARTITION_KEY] = line.key.decode()
    if job.expires_at:
        extensions[EXPIRY_TIME] = job.expires_at
    return Event(
        id=event_id(job.id, line.number),
        source=job.source,
        type=job.type,
        subject=line.record_id,
        time=job.started_at,
        datacontenttype="application/json",
        data=line.raw,
        extensions=extensions,
    )


class _Numbers:
    """A set of line numbers, a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        if number // 8 >= len(self._bits):
            self._bits.extend(bytes(number // 8 + 1 - len(self._bits) + 1024))
        self._bits[number // 8] |= 1 << number % 8

    def __contains__(self, number: int) -> bool:
        return number // 8 < len(self._bits) and bool(self._bits[number // 8] & 1 << number % 8)
