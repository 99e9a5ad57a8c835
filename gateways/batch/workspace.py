"""Where a command works on a job: its copy of the input, the outcomes on disk, the files on their way.

Blocking: copies inputs.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from contracts.batch_jobs import BatchJob, BatchObject
from contracts.codec import encodable
from contracts.errors import ConfigError, InvalidPayload, Retryable, TooLarge, is_of_disk
from contracts.settings import BatchJobSettings
from gateways.batch.objects import Objects, is_s3, split
from gateways.batch.outcomes import Outcomes

_BLOCK_BYTES = 2**20


class Desk:
    """A folder that goes when the work is done; a context manager.

    Args:
        settings: the batch_jobs section.
        base: what relative paths of inputs start from.
    """

    def __init__(self, settings: BatchJobSettings, base: Path) -> None:
        self._settings = settings
        self._base = base
        self._open = contextlib.ExitStack()
        self.objects = Objects(settings)

    def __enter__(self) -> Self:
        work_dir = self._settings.work_dir or None
        try:
            folder = tempfile.TemporaryDirectory(prefix="penstock-batch-", dir=work_dir)
        except OSError as error:
            message = f"batch_jobs.work_dir: {work_dir or tempfile.gettempdir()} cannot be used: {error.strerror}"
            raise ConfigError(message) from error
        self._folder = Path(self._open.enter_context(folder))
        self._open.callback(self.objects.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
        # The outcomes are the one database here.
        if isinstance(error, sqlite3.OperationalError) and is_of_disk(error):
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Retryable:
        reason = error.strerror if isinstance(error, OSError) else error
        return Retryable(f"batch_jobs.work_dir: {self._folder.parent}: {reason}")

    def input(self, uri: str) -> tuple[BatchObject, Path]:
        """Return what an input is now, and a copy of it.

        Raises:
            InvalidPayload: there is none, it cannot be read, or it changes just now.
            TooLarge: it is above `batch_jobs.max_input_bytes`.
            AccessDenied, Retryable: S3 does not give it.
        """
        if is_s3(uri):
            if not all(split(uri)):
                message = f"{uri}: expected s3://bucket/key"
                raise InvalidPayload(message)
            return self.copy(self.objects.find(uri))
        path = (self._base / uri).resolve()
        if encodable(str(path)) != str(path):
            message = f"{str(path)!a}: the path of an input must be UTF-8 text, for the log names it"
            raise InvalidPayload(message)
        return self.copy(BatchObject(uri=str(path)))

    def copy(self, found: BatchObject) -> tuple[BatchObject, Path]:
        """Return a copy of an input that is known already: what becomes of the input afterwards changes no job.

        Raises:
            InvalidPayload: it is gone, cannot be read or changes just now, or another one stands in its place.
            TooLarge: it is above `batch_jobs.max_input_bytes`.
            AccessDenied: the credentials do not reach it.
            Retryable: S3 does not give it, or there is no room for it in `batch_jobs.work_dir`.
        """
        try:
            return found, self._copied(found)
        except OSError as error:
            # One with a name is not of the copy, which is open.
            if error.filename is None and is_of_disk(error):
                raise self._unusable(error) from error
            raise

    def _copied(self, found: BatchObject) -> Path:
        copy = self._folder / "input.jsonl"
        if is_s3(found.uri):
            self.objects.fetch(found, copy)
            return copy
        path = Path(found.uri)
        if not path.is_file():
            message = f"{path}: {'this is no regular file' if path.exists() else 'there is no such file'}"
            raise InvalidPayload(message)
        try:
            source = path.open("rb")
        except OSError as error:
            message = f"{path}: cannot be read: {error.strerror}"
            raise InvalidPayload(message) from error
        with source, copy.open("wb") as target:
            self._copy(path, source, target)
        return copy

    def _copy(self, path: Path, source: BinaryIO, target: BinaryIO) -> None:
        # Lines are numbered, and read more than once: of a file that is still written, or written anew, some would be
        # sent as they were and others as they are.
        limit, before = self._settings.max_input_bytes, _state(source)
        if before[0] > limit:
            message = f"{path} is above batch_jobs.max_input_bytes ({limit})"
            raise TooLarge(message)
        # Of a file that grows as fast as it is read, no more than was there.
        target.writelines(source.read(_BLOCK_BYTES) for _ in range(0, before[0] + 1, _BLOCK_BYTES))
        if target.tell() != before[0] or _state(source) != before:
            message = f"{path}: it changes while it is read; run this again when it is whole"
            raise InvalidPayload(message)

    def outcomes(self, job: BatchJob) -> Outcomes:
        """Return an empty store for a job's outcomes."""
        return Outcomes(job, self._folder / "outcomes.db")

    @contextlib.contextmanager
    def folder_in(self, parent: Path) -> Iterator[Path]:
        """Give a folder beside where files are to go, so that they can be renamed into place.

        Raises:
            InvalidPayload: nothing can be written there.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix=".penstock-", dir=parent)
        except OSError as error:
            message = f"{parent}: cannot be written: {error.strerror}"
            raise InvalidPayload(message) from error
        with folder as name:
            yield Path(name)


def _state(file: BinaryIO) -> tuple[int, int]:
    """Return size and time of the last change of an open file."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
