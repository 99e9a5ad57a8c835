"""Gathers the outcomes of a job's lines on disk, one for each, so that memory does not depend on their number.

Reads: result topics. Blocking: reads the log; writes a SQLite file that is thrown away afterwards.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from contracts.batch_jobs import BatchJob, line_of
from contracts.envelope import EVENT_ID, EVENT_SOURCE
from contracts.payloads import RESULT_TYPE, TERMINAL_TYPES
from producers.log_reader import Found

_TABLE = """
CREATE TABLE outcome (line INTEGER PRIMARY KEY, is_result INTEGER NOT NULL, body BLOB NOT NULL);
"""
# A redriven line has a marker first and a result later: the result stands. Of two equals the first stands.
_TAKE = """
INSERT INTO outcome VALUES (?, ?, ?) ON CONFLICT (line) DO UPDATE
SET is_result = excluded.is_result, body = excluded.body WHERE excluded.is_result > outcome.is_result
"""
_EVENT_ID, _EVENT_SOURCE = f"ce_{EVENT_ID}", f"ce_{EVENT_SOURCE}"


class Outcome(NamedTuple):
    """The terminal record of one line: a result's value, or a marker's."""

    line: int
    is_result: bool
    body: bytes


class Outcomes:
    """The outcomes of one job; a context manager.

    Args:
        job: whose.
        file: to be made, and removed at the end.

    Attributes:
        repeated: terminal records that said again what was known: none, unless a crash of the log made one.
    """

    def __init__(self, job: BatchJob, file: Path) -> None:
        self._job = job
        self._file = file
        file.unlink(missing_ok=True)
        self._database = sqlite3.connect(file, isolation_level=None)
        # Thrown away after a crash: nothing needs to be safe.
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_TABLE)
        self.repeated = 0
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._file.unlink(missing_ok=True)

    def take(self, records: Iterable[Found]) -> int:
        """Take in records; return how many lines have an outcome now that had none."""
        rows = [row for record in records if (row := self._row(record)) is not None]
        if not rows:
            return 0
        before = self._database.total_changes
        self._database.execute("BEGIN")
        self._database.executemany(_TAKE, rows)
        self._database.execute("COMMIT")
        self.repeated += len(rows) - (self._database.total_changes - before)
        known = self.count
        (self.count,) = self._database.execute("SELECT count(*) FROM outcome").fetchone()
        return self.count - known

    def _row(self, record: Found) -> tuple[int, bool, bytes] | None:
        headers = record.headers
        kind = headers.get("ce_type", b"").decode(errors="replace")
        if kind not in TERMINAL_TYPES or headers.get(_EVENT_SOURCE) != self._job.source.encode():
            return None
        line = line_of(self._job.id, headers.get(_EVENT_ID, b"").decode(errors="replace"))
        return None if line is None else (line, kind == RESULT_TYPE, record.value or b"")

    def __iter__(self) -> Iterator[Outcome]:
        """Yield what there is in the order of the lines."""
        for line, is_result, body in self._database.execute("SELECT line, is_result, body FROM outcome ORDER BY line"):
            yield Outcome(line, bool(is_result), body)
