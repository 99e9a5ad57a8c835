"""Gathers records for the jobs of one hand-over, on disk.

Blocking: writes files.
"""

import contextlib
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from contracts.batch_jobs import HandOver, HandOverPart
from contracts.envelope import format_time
from producers.log_reader import Found
from streams.handover.choosing import Ways, record_id


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
        limits = [way.batch for way in self._ways.by_route.values()]
        if time.monotonic() - self._began_s >= min(limit.max_wait_s for limit in limits):
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
