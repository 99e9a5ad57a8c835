"""The output of a hand-over's jobs on disk, by record id: it comes in no order.

Blocking: writes a SQLite file that is thrown away afterwards.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self


class Answers:
    """Lines of output by record id; a context manager.

    Args:
        file: to be made, and removed at the end.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        file.unlink(missing_ok=True)
        self._database = sqlite3.connect(file)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE answer (name TEXT PRIMARY KEY, line BLOB NOT NULL, arn TEXT NOT NULL)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._file.unlink(missing_ok=True)

    def take(self, arn: str, lines: Iterable[tuple[str, bytes]]) -> int:
        """Take in a job's output and return how many records it is about; of two lines with one id the first stands."""
        before = self._database.total_changes
        rows = ((name, line, arn) for name, line in lines)
        self._database.executemany("INSERT OR IGNORE INTO answer VALUES (?, ?, ?)", rows)
        self._database.commit()
        return self._database.total_changes - before

    def get(self, name: str) -> tuple[bytes, str] | None:
        """Return line and job of a record; None when no job said anything about it."""
        found: tuple[bytes, str] | None = self._database.execute(
            "SELECT line, arn FROM answer WHERE name = ?", (name,)
        ).fetchone()
        return found
