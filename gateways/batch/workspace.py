"""Where a command works on a job: its copy of the input, the outcomes on disk, the files on their way.

Blocking: copies inputs from S3.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from contracts.batch_jobs import BatchJob, BatchObject
from contracts.errors import InvalidPayload, TooLarge
from contracts.settings import BatchJobSettings
from gateways.batch.objects import Objects, is_s3
from gateways.batch.outcomes import Outcomes


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
        self._folder = Path(
            self._open.enter_context(tempfile.TemporaryDirectory(prefix="penstock-batch-", dir=self._settings.work_dir))
        )
        self._open.callback(self.objects.close)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    def input(self, uri: str) -> tuple[BatchObject, Path]:
        """Return what an input is now, and a file with it.

        Raises:
            InvalidPayload: there is none.
            TooLarge: it is above `batch_jobs.max_input_bytes`.
            AccessDenied, Retryable: S3 does not give it.
        """
        if is_s3(uri):
            return self.copy(self.objects.find(uri))
        return self.copy(BatchObject(uri=str((self._base / uri).resolve())))

    def copy(self, found: BatchObject) -> tuple[BatchObject, Path]:
        """Return a file with an input that is known already.

        Raises:
            InvalidPayload: it is gone, or another one stands in its place.
            TooLarge: it is above `batch_jobs.max_input_bytes`.
            AccessDenied, Retryable: S3 does not give it.
        """
        if is_s3(found.uri):
            path = self._folder / "input.jsonl"
            self.objects.fetch(found, path)
            return found, path
        path = Path(found.uri)
        if not path.is_file():
            message = f"{path}: {'this is no regular file' if path.exists() else 'there is no such file'}"
            raise InvalidPayload(message)
        if path.stat().st_size > self._settings.max_input_bytes:
            message = f"{path} is above batch_jobs.max_input_bytes ({self._settings.max_input_bytes})"
            raise TooLarge(message)
        return found, path

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
