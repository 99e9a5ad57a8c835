"""The process behind `penstock batch serve`: works on every job that was asked for on the jobs topic, until it is over.

Reads: batch-jobs, events, result topics. Writes: batch-jobs, events, S3 objects. It keeps nothing that it needs: after
a kill at any moment the same jobs are taken up where the log says they are. It waits while Kafka is away.
Blocking: until stopped.
"""

import contextlib
import fcntl
import shutil
import socket
import sqlite3
import ssl
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.batch_jobs import BatchJob, BatchRequest
from contracts.envelope import format_time, parse_time
from contracts.errors import DISK_ERRORS, ConfigError, LogUnavailable, PenstockError, Rejected, Retryable, is_of_disk
from contracts.logs import logger
from contracts.metrics import BATCH_JOBS, BATCH_JOBS_OPEN, BATCH_LAST, BATCH_OLDEST, BATCH_RESTS
from contracts.settings import BatchInput, Settings
from contracts.topics import Topics
from gateways.batch.jobs import Jobs
from gateways.batch.objects import Objects, below, split
from gateways.batch.outcomes import Outcomes
from gateways.batch.run import JobRun
from gateways.batch.submitting import wanted_job
from producers.admin import Patience, differing
from producers.fenced import TakenOver
from producers.kafka_client import Stopped
from producers.log_reader import LogReader

_POLL_S = 0.5
_OF_NETWORK = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
_log = logger("batch")


class Service:
    """Works on the jobs of one installation; two of them on one cluster are safe, and no faster.

    Args:
        settings: the whole configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inputs = {section.name: section for section in settings.batch_jobs.inputs}
        self._objects = Objects(settings.batch_jobs)
        self._stop = threading.Event()
        self._patience = Patience(settings.kafka, "batch", self._stop)
        self._has_read = self._has_looked = False
        # What was heard of them stays, whatever becomes of the topic.
        self._jobs = Jobs()
        self._active: dict[str, Future[None]] = {}
        # Given up here: somebody else works on them, or their section is not in this configuration.
        self._left: set[str] = set()

    def stop(self) -> None:
        """End soon; what is under way is taken up by the next start."""
        self._stop.set()

    def unready(self) -> list[str]:
        """Return why no job is begun now."""
        if self._stop.is_set():
            return ["shutting_down"]
        if self._patience.waits_for:
            return self._patience.reasons
        return [] if self._has_read else ["reads the jobs topic: what was asked for and is not done yet"]

    def serve(self) -> None:
        """Work until `stop`; wait while Kafka is away.

        Raises:
            ConfigError: the work folder cannot be used, or another process uses it.
        """
        settings = self._settings.batch_jobs
        with _work_folder(settings.work_dir) as work, ThreadPoolExecutor(settings.max_jobs, "batch-job") as pool:
            try:
                self._patience.run(lambda: self._follow(pool, work))
            finally:
                self._stop.set()
        self._objects.close()

    def _follow(self, pool: ThreadPoolExecutor, work: Path) -> None:
        jobs, topic = self._jobs, Topics(self._settings.kafka.topic_prefix).batch_jobs
        self._has_read = False
        if not self._has_looked:
            if problems := differing(self._settings, [topic], self._stop.is_set):
                _log.warning("batch.topics_differ", problems=problems)
            self._has_looked = True
        with LogReader(self._settings.kafka, self._stop.is_set) as reader:
            reader.begin({topic: ()}, {})
            # Before the end nobody knows which requests have been answered since.
            while not (self._stop.is_set() or reader.at_end):
                jobs.note(reader.poll(_POLL_S))
            self._has_read = True
            _log.info("batch.serving", waiting=len(jobs.waiting), inputs=sorted(self._inputs))
            while not self._stop.is_set():
                self._reap()
                for request in jobs.waiting:
                    self._begin(pool, work, request)
                jobs.note(reader.poll(_POLL_S))
                if anew := reader.widen():
                    _log.warning("batch.jobs_topic_made_anew", topics=sorted(anew), waiting=len(jobs.waiting))
                _measure(jobs.waiting)

    def _reap(self) -> None:
        for job_id in [name for name, future in self._active.items() if future.done()]:
            future = self._active.pop(job_id)
            # Its last record may not be read yet.
            self._left.add(job_id)
            if error := future.exception():
                # A bug: seen here, once, and the job is left alone until the next start.
                _log.error("batch.job_broke", job=job_id, exc_info=error)

    def _begin(self, pool: ThreadPoolExecutor, work: Path, request: BatchRequest) -> None:
        busy = len(self._active) >= self._settings.batch_jobs.max_jobs
        if busy or request.id in self._active or request.id in self._left:
            return
        section = self._inputs.get(request.input)
        if section is None:
            self._left.add(request.id)
            _log.warning("batch.input_unknown", job=request.id, input=request.input)
            return
        self._active[request.id] = pool.submit(self._work, request, section, work / request.id)

    def _work(self, request: BatchRequest, section: BatchInput, folder: Path) -> None:
        """Do one job to its end, through failures that pass."""
        run = JobRun(self._settings, self._objects, self._stop.is_set)
        while not self._stop.is_set():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir(parents=True)
                self._once(run, request, section, folder)
            except TakenOver as error:
                self._left.add(request.id)
                _log.warning("batch.job_taken_over", job=request.id, error=str(error))
                return
            except Stopped:
                return
            except Rejected as error:
                self._give_up(run, request, error)
                return
            except (PenstockError, *DISK_ERRORS) as error:
                reason = _reason(error)
                BATCH_RESTS.labels(reason).inc()
                _log.warning("batch.job_rests", job=request.id, reason=reason, error=str(error))
                self._stop.wait(self._settings.batch_jobs.retry_pause_s)
            else:
                return
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _once(self, run: JobRun, request: BatchRequest, section: BatchInput, folder: Path) -> None:
        path = folder / "input.jsonl"
        self._objects.fetch(request.object, path, self._stop.is_set)
        job = run.submit(_wanted(request, section), path, known=self._jobs.jobs.get(request.id))
        if self._stop.is_set() or job.is_over:
            return
        _log.info("batch.job_submitted", job=job.id, lines=job.lines, rejected=job.rejected)
        with Outcomes(job, folder / "outcomes.db") as outcomes:
            if not run.follow(job, outcomes):
                return
            _, key = split(request.object.uri)
            manifest = run.write(job, path, outcomes, folder, below(section.output, key, job.id))
        BATCH_JOBS.labels("finished").inc()
        BATCH_LAST.set_to_current_time()
        _log.info("batch.job_finished", job=job.id, **manifest["counts"], cost_usd=manifest["cost_usd"])

    def _give_up(self, run: JobRun, request: BatchRequest, error: Rejected) -> None:
        """Note that a job cannot be done: its input is gone, changed or too large."""
        _log.error("batch.job_failed", job=request.id, reason=error.reason, error=str(error))
        BATCH_JOBS.labels("failed").inc()
        try:
            known = self._jobs.jobs.get(request.id)
            run.fail(known or _wanted(request, self._inputs[request.input]), str(error))
        except (LogUnavailable, TakenOver) as failure:
            # The next start meets the same end; or another process has noted it in the same moment.
            self._left.add(request.id)
            _log.warning("batch.job_rests", job=request.id, reason=failure.reason, error=str(failure))


def _reason(error: PenstockError | OSError | sqlite3.OperationalError) -> str:
    """Return, in a word, what a job rests for; raise what is a bug."""
    if isinstance(error, PenstockError):
        return error.reason
    if is_of_disk(error):
        return "disk"
    if isinstance(error, sqlite3.OperationalError):
        raise error
    return Retryable.reason if isinstance(error, _OF_NETWORK) else "system"


def _measure(waiting: list[BatchRequest]) -> None:
    now = datetime.now(UTC)
    ages_s = [(now - (parse_time(request.requested_at) or now)).total_seconds() for request in waiting]
    BATCH_JOBS_OPEN.set(len(waiting))
    BATCH_OLDEST.set(max([0.0, *ages_s]))


def _wanted(request: BatchRequest, section: BatchInput) -> BatchJob:
    asked_at = parse_time(request.requested_at) or datetime.now(UTC)
    limit_s = section.expires_after_s
    return wanted_job(
        request.id,
        request.object,
        source=section.source,
        kind=section.type,
        record_id=section.record_id,
        partition_key=section.partition_key or "",
        expires_at=format_time(asked_at + timedelta(seconds=limit_s)) if limit_s else "",
    )


@contextlib.contextmanager
def _work_folder(configured: str | None) -> Iterator[Path]:
    """Hold the folder for this process alone; what an earlier one left in it goes."""
    folder = Path(configured or tempfile.gettempdir()) / "penstock-batch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w", encoding="ascii")
    except OSError as error:
        message = f"batch_jobs.work_dir: {folder} cannot be used: {error.strerror}"
        raise ConfigError(message) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"batch_jobs.work_dir: another process works in {folder}; give each its own"
            raise ConfigError(message) from error
        for left in folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield folder
