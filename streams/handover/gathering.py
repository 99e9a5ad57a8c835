"""Gathers records for the jobs of one hand-over, on disk, and knows which log they are of.

Reads: batch-jobs. Blocking: writes files; asks Kafka for ids of topics, and for what an operator has given up.
"""

import contextlib
import errno
import secrets
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from contracts.batch_jobs import DENIED, GIVEN_UP, UNSEEN, GivenUp, HandOver, HandOverPart, kind_of
from contracts.codec import decode_json
from contracts.envelope import format_time, parse_time
from contracts.errors import AccessDenied, ConfigError, LogUnavailable, PenstockError, Undecodable
from contracts.logs import logger
from contracts.metrics import HANDOVER_RESTS
from contracts.settings import Settings
from contracts.topics import Topics
from producers.admin import TopicAdmin
from producers.kafka_client import IsStopped, unless_stopped
from producers.log_reader import Found, LogReader
from streams.handover.choosing import Ways, record_id

_IDS_TIMEOUT_S = 10.0
# What ended longer ago than this the jobs topic may have forgotten by its retention.
_KEPT = timedelta(days=1)
_log = logger("hand-over")


def check_folder(work_dir: str | None) -> None:
    """Tell a mistake in the configuration from a disk that is full for a while.

    Raises:
        ConfigError: the folder cannot be used.
    """
    if work_dir is None:
        return
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=work_dir).close()
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            message = f"batch_jobs.work_dir: {work_dir} cannot be used: {error.strerror}"
            raise ConfigError(message) from error


class _Lines:
    """The records of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.size_bytes = 0
        self.ids: set[str] = set()
        self._file: BinaryIO = path.open("wb")

    def add(self, name: str, line: bytes) -> None:
        self._file.write(line)
        self.ids.add(name)
        self.count += 1
        self.size_bytes += len(line)

    def close(self) -> None:
        self._file.close()


class Gathering:
    """The records since the last hand-over.

    Args:
        ways: what may be handed over.
        folder: for the files; it must be empty.
    """

    def __init__(self, ways: Ways, folder: Path) -> None:
        self._ways = ways
        self._folder = folder
        self._lines: dict[str, _Lines] = {}
        self._began_s = time.monotonic()
        self.ranges: dict[str, tuple[int, int]] = {}

    def take(self, record: Found) -> None:
        """Take one record, in the order of its partition."""
        if not self.ranges:
            self._began_s = time.monotonic()
        first, _ = self.ranges.get(str(record.partition), (record.offset, 0))
        self.ranges[str(record.partition)] = (first, record.offset + 1)
        job = self._ways.job(record)
        name = record_id(record.partition, record.offset)
        found = None if job.is_foreign else self._ways.line(job, name)
        if found is not None:
            way, line = found
            alias = way.route.model
            if alias not in self._lines:
                self._lines[alias] = _Lines(self._folder / f"{alias}.jsonl")
            self._lines[alias].add(name, line)

    @property
    def is_due(self) -> bool:
        """Tell whether a job is full, or the oldest record has waited long enough."""
        if not self.ranges:
            return False
        if time.monotonic() - self._began_s >= min(api.batch.max_wait_s for api in self._ways.apis.values()):
            return True
        return any(self._is_full(alias, lines) for alias, lines in self._lines.items())

    def _is_full(self, alias: str, lines: _Lines) -> bool:
        batch = self._ways.by_alias[alias].batch
        # Room for one more record of usual size; a line is never longer than a prompt may be.
        return lines.count >= batch.max_records or lines.size_bytes >= batch.max_bytes

    def close(self) -> dict[str, Path]:
        """End the files and return those that make a job, by alias; the others are too few, and go."""
        files = {}
        for alias, lines in self._lines.items():
            lines.close()
            if lines.count >= self._ways.by_alias[alias].batch.min_records:
                files[alias] = lines.path
            else:
                lines.path.unlink()
        return files

    def abandon(self) -> None:
        """Close the files, whose records are on the log."""
        for lines in self._lines.values():
            # On a full disk what is left in a buffer cannot be written here either.
            with contextlib.suppress(OSError):
                lines.close()

    def hand_over(
        self, aliases: list[str], answer_starts: dict[str, tuple[int, ...]], answer_logs: dict[str, str], log: str
    ) -> HandOver:
        """Return the hand-over of what was gathered, as it is first written to the log."""
        name = secrets.token_hex(8)
        parts = {}
        for number, alias in enumerate(sorted(aliases)):
            batch = self._ways.by_alias[alias].batch
            parts[alias] = HandOverPart(
                token=f"{name}x{number}",
                input_uri=f"{batch.input.rstrip('/')}/{name}/{number}.jsonl",
                output_uri=f"{batch.output.rstrip('/')}/{name}/",
                asked=self._ways.asked(alias),
            )
        now = format_time(datetime.now(UTC))
        return HandOver(
            id=name,
            ranges=self.ranges,
            answer_starts=answer_starts,
            parts=parts,
            gathered_at=now,
            log=log,
            answer_logs=answer_logs,
        )


class Log:
    """Which log the hand-over topic is: made anew under its name it has another id, and its offsets begin again.

    The jobs topic is watched as well: made anew, it has forgotten what was handed over.

    Args:
        settings: the whole configuration.
        is_stopped: gives up asking when it says so.

    Attributes:
        id, jobs_id: of the hand-over topic, and of the jobs topic, hexadecimal; empty when Kafka does not say: the
            embedded broker, and brokers before Kafka 2.8.

    Raises:
        Stopped: a stop came first.
    """

    def __init__(self, settings: Settings, is_stopped: IsStopped) -> None:
        topics = Topics(settings.kafka.topic_prefix)
        self._names = topics.handovers, topics.batch_jobs
        self._is_stopped = is_stopped
        self._admin = None if settings.kafka.embedded else TopicAdmin(settings.kafka, _IDS_TIMEOUT_S)
        self._ids = self._ask()
        self.id = self._ids.get(topics.handovers, "")
        self.jobs_id = self._ids.get(topics.batch_jobs, "")

    def _ask(self) -> dict[str, str]:
        if (admin := self._admin) is None:
            return {}
        found = unless_stopped(lambda: admin.ids(self._names), self._is_stopped)
        return {topic: f"{number:032x}" for topic, number in found.items()}

    def confirm(self) -> None:
        """Return when both are the same logs still.

        Raises:
            LogUnavailable: one is another, or Kafka does not say any more: begin anew.
            Stopped: a stop came first.
        """
        now = self._ask()
        for topic in self._names:
            if now.get(topic) != self._ids.get(topic):
                message = f"topic {topic} was made anew, or its id cannot be read"
                raise LogUnavailable(message)

    def holds(self, state: HandOver) -> bool:
        """Tell whether the ranges of a hand-over are of this log; where an id is not known, they are taken for it."""
        return not (self.id and state.log) or state.log == self.id


def forgotten(noted: Mapping[str, HandOver], found: Mapping[str, HandOver], *, is_anew: bool) -> list[HandOver]:
    """Return what is remembered of hand-overs and the jobs topic should know, and does not.

    Those that ended long ago it forgets by its retention; whatever else is missing it has lost, as with its end.

    Args:
        noted: what is remembered.
        found: what the topic knows.
        is_anew: the topic is another one than before, and should know all of them.
    """
    now = datetime.now(UTC)

    def may_have_expired(state: HandOver) -> bool:
        ended_at = parse_time(state.ended_at)
        return state.state == "finished" and ended_at is not None and now - ended_at > _KEPT

    missing = [state for name, state in noted.items() if name not in found]
    return missing if is_anew else [state for state in missing if not may_have_expired(state)]


def given_up_jobs(reader: LogReader, topics: Topics, hand_over: str) -> dict[str, GivenUp]:
    """Return which of a hand-over's jobs an operator has given up, by their ARN.

    Raises:
        LogUnavailable: the jobs topic cannot be read.
    """
    jobs: dict[str, GivenUp] = {}
    with reader:
        reader.begin({topics.batch_jobs: ()})
        for record in reader.to_the_end():
            if kind_of(record.key) is GivenUp and record.value is not None:
                with contextlib.suppress(Undecodable):
                    wish = decode_json(record.value, GivenUp)
                    if wish.id == hand_over:
                        jobs[wish.job] = wish
    return jobs


def status_of(error: PenstockError, wish: GivenUp | None) -> str:
    """Return the status of a job that cannot be seen.

    Args:
        error: why. Where access is denied, the job is most likely there, and runs.
        wish: to give it up; None = there is none.
    """
    is_denied = isinstance(error, AccessDenied)
    if wish is not None and (wish.even_if_denied or not is_denied):
        return GIVEN_UP
    return DENIED if is_denied else UNSEEN


def note_rest(error: Exception, **fields: str) -> None:
    """Say that something is put off by a failure that may pass: one of ours, or of the disk."""
    reason = error.reason if isinstance(error, PenstockError) else "disk"
    HANDOVER_RESTS.labels(reason).inc()
    _log.warning("handover.rests", **fields, reason=reason, error=str(error))
