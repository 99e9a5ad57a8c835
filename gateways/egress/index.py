"""An index on disk of which outcome lies where: SQLite, with bounded memory and a bounded file; no outcomes in it.

Rows go into segments, tables of some hundred thousand rows each, so that inserting stays inside the page cache and the
oldest are dropped whole. How far the topics have been read is written in the same transaction as what was read there:
after a restart, also by SIGKILL, reading goes on where the rows end. Kafka is the truth: an index that is missing, of
another version or damaged is made anew, and whoever fetches a record checks that it is the one.

Blocking: every call reads or writes the disk. Writing is for one thread, looking up for any number.
Source: SQLite 3, WAL mode (https://www.sqlite.org/wal.html), WITHOUT ROWID tables (checked 2026-11).
"""

import contextlib
import fcntl
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from contracts.codec import Position
from contracts.errors import ConfigError
from contracts.logs import logger
from gateways.egress.outcomes import Accepted

VERSION = 1
SEGMENT_ROWS = 200_000
# A row of either table takes at most so much, so that a small file still has several segments (measured: 60 to 150).
_ROW_BYTES = 200
_SEGMENTS_AT_LEAST = 8
_CACHE_KIB = 8 * 1024
_ID_CHARS = 36
_KEY_BYTES = 16
# How a file of SQLite begins, and a table that every index has had.
_HEADER = b"SQLite format 3\0"
_A_TABLE = "read_to"

_log = logger("gateway")


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


class Written(NamedTuple):
    """An outcome as the index keeps it."""

    result_id: str
    place: Place
    timestamp_ms: int


class Noted(NamedTuple):
    """An accepted event of an API caller as the index keeps it."""

    owner: str
    event_id: str
    accepted: Accepted


class ResultIndex:
    """The index.

    Args:
        path: its file; the folder is made.
        max_bytes: of the file; the oldest segments are dropped to keep it.

    Raises:
        ConfigError: the file cannot be used, or another process uses it.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._segment_rows = min(SEGMENT_ROWS, max_bytes // (_ROW_BYTES * _SEGMENTS_AT_LEAST))
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        _check_header(path)
        self._lock = _hold(path)
        self._topics: dict[str, int] = {}
        try:
            self._writer = self._open()
        except ConfigError:
            self._lock.close()
            raise
        # Newest first; (number, rows). Read by other threads: replaced, never changed.
        self._segments: tuple[tuple[int, int], ...] = tuple(
            self._writer.execute("SELECT id, rows FROM segments ORDER BY id DESC")
        )
        self._topics = dict(self._writer.execute("SELECT name, id FROM topics"))
        self.lost_before_ms = self._meta("lost_before_ms")

    def close(self) -> None:
        """Close the file and let go of it."""
        for connection in (*self._connections, self._writer):
            connection.close()
        self._lock.close()

    @property
    def used_bytes(self) -> int:
        """Return what rows and indexes take of the file."""
        pages, free, size = (_pragma(self._writer, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def discard(self) -> None:
        """Let the next start make a new file: this one is damaged."""
        _remove(self._path)

    def next_offsets(self) -> dict[tuple[str, int], int]:
        """Return how far each partition has been read."""
        rows = self._writer.execute("SELECT name, partition, next FROM read_to JOIN topics ON topics.id = topic")
        return {(name, partition): offset for name, partition, offset in rows}

    def log_ids(self) -> dict[str, str]:
        """Return the id of each topic's log, as far as it was known."""
        return dict(self._writer.execute("SELECT name, id FROM logs"))

    def note_logs(self, log_ids: Mapping[str, str], anew: Iterable[str]) -> None:
        """Note the ids of the topics' logs; forget how far those were read that were made anew."""
        with self._transaction() as writer:
            writer.executemany("INSERT OR REPLACE INTO logs VALUES (?, ?)", log_ids.items())
            writer.executemany("DELETE FROM read_to WHERE topic = ?", [(self._topic(name),) for name in anew])

    def write(
        self,
        outcomes: Sequence[Written],
        accepted: Sequence[Noted],
        next_offsets: Mapping[tuple[str, int], int],
        keep_since_ms: int,
    ) -> None:
        """Add what was read, and how far, in one transaction; drop what is too old or too much."""
        rows = [(_packed(one.result_id), *self._packed_place(one.place)) for one in outcomes if _is_ours(one.result_id)]
        notes = [self._packed_note(one) for one in accepted]
        newest_ms = max([*(one.timestamp_ms for one in outcomes), *(note[5] for note in notes)], default=0)
        with self._transaction() as writer:
            number = self._segment(writer, len(rows) + len(notes), newest_ms)
            writer.executemany(f"INSERT OR REPLACE INTO outcomes_{number} VALUES (?, ?, ?, ?)", rows)  # noqa: S608 - a number of ours
            writer.executemany(f"INSERT OR REPLACE INTO accepted_{number} VALUES (?, ?, ?, ?, ?, ?)", notes)  # noqa: S608 - the same
            offsets = [(self._topic(topic), part, offset) for (topic, part), offset in next_offsets.items()]
            writer.executemany("INSERT OR REPLACE INTO read_to VALUES (?, ?, ?)", offsets)
            self._prune(writer, keep_since_ms)

    def place_of(self, result_id: str) -> Place | None:
        """Return where an outcome lies; the newest one of an event that was done again."""
        if not _is_ours(result_id):
            return None
        reader, packed = self._reader(), _packed(result_id)
        for number, _ in self._segments:
            query = (
                f"SELECT name, partition, offset FROM outcomes_{number} o JOIN topics t ON t.id = topic WHERE o.id = ?"  # noqa: S608 - a number of ours
            )
            if (found := _one(reader, query, (packed,))) is not None:
                return Place(*found)
        return None

    def accepted(self, owner: str, event_id: str, source: str | None) -> Accepted | None:
        """Return the newest event of a caller with this id, of this source when given."""
        reader, key = self._reader(), _key(owner, event_id)
        for number, _ in self._segments:
            if (found := _one(reader, _ACCEPTED.format(number=number), (key, source))) is not None:
                return Accepted(found[0], Position(*found[1:]))
        return None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            _log.warning("results.index_made_anew", path=str(self._path), error=str(error))
            _remove(self._path)
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            message = f"gateway.results_view.path: {self._path}: {error}"
            raise ConfigError(message) from error

    def _opened(self) -> sqlite3.Connection:
        connection = self._connect()
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if tables and _A_TABLE not in tables:
                raise _foreign(self._path)
            if (version := _pragma(connection, "user_version")) in {0, VERSION}:
                connection.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}; PRAGMA user_version = {VERSION};")
                return connection
        except (sqlite3.DatabaseError, ConfigError):
            connection.close()
            raise
        connection.close()
        message = f"version {version}, this program writes {VERSION}"
        raise sqlite3.DatabaseError(message)

    def _connect(self) -> sqlite3.Connection:
        # Closed by another thread than the one that used it.
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _reader(self) -> sqlite3.Connection:
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
            self._connections.append(reader)
        return reader

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        segments, topics = self._segments, dict(self._topics)
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            self._segments, self._topics = segments, topics
            self._writer.execute("ROLLBACK")
            raise

    def _segment(self, writer: sqlite3.Connection, rows: int, newest_ms: int) -> int:
        """Return the segment that takes so many more rows; a new one when the last is full."""
        number, held = self._segments[0] if self._segments else (0, self._segment_rows)
        older = self._segments[1:]
        if held >= self._segment_rows:
            number, held, older = number + 1, 0, self._segments
            writer.execute("INSERT INTO segments VALUES (?, 0, 0)", (number,))
            for statement in _SEGMENT.format(number=number).split(";"):
                writer.execute(statement)
        writer.execute(
            "UPDATE segments SET rows = rows + ?, newest_ms = max(newest_ms, ?) WHERE id = ?", (rows, newest_ms, number)
        )
        self._segments = ((number, held + rows), *older)
        return number

    def _prune(self, writer: sqlite3.Connection, keep_since_ms: int) -> None:
        """Drop the oldest segments while they are too old or the file too large; the newest stays."""
        while len(self._segments) > 1:
            number = self._segments[-1][0]
            (newest_ms,) = writer.execute("SELECT newest_ms FROM segments WHERE id = ?", (number,)).fetchone()
            is_too_old = newest_ms < keep_since_ms
            if not is_too_old and self.used_bytes <= self._max_bytes:
                return
            if not is_too_old:
                self.lost_before_ms = max(self.lost_before_ms, newest_ms)
                writer.execute("INSERT OR REPLACE INTO meta VALUES ('lost_before_ms', ?)", (self.lost_before_ms,))
            writer.execute("DELETE FROM segments WHERE id = ?", (number,))
            writer.execute(f"DROP TABLE outcomes_{number}")
            writer.execute(f"DROP TABLE accepted_{number}")
            self._segments = self._segments[:-1]

    def _meta(self, name: str) -> int:
        found = self._writer.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def _topic(self, name: str) -> int:
        number = self._topics.get(name)
        if number is None:
            number = self._topics[name] = len(self._topics) + 1
            self._writer.execute("INSERT INTO topics VALUES (?, ?)", (number, name))
        return number

    def _packed_place(self, place: Place) -> tuple[int, int, int]:
        return self._topic(place.topic), place.partition, place.offset

    def _packed_note(self, note: Noted) -> tuple[bytes, str, int, int, int, int]:
        source, at = note.accepted
        return _key(note.owner, note.event_id), source, self._topic(at.topic), at.partition, at.offset, at.timestamp_ms


_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS topics (id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS read_to (topic INTEGER, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS logs (name TEXT PRIMARY KEY, id TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (id INTEGER PRIMARY KEY, rows INTEGER, newest_ms INTEGER)
"""
_SEGMENT = """
CREATE TABLE outcomes_{number} (id BLOB PRIMARY KEY, topic INTEGER, partition INTEGER, offset INTEGER) WITHOUT ROWID;
CREATE TABLE accepted_{number} (key BLOB, source TEXT, topic INTEGER, partition INTEGER, offset INTEGER,
  timestamp_ms INTEGER, PRIMARY KEY (key, source)) WITHOUT ROWID
"""


_PLACE = """
SELECT name, partition, offset FROM outcomes_{number} found JOIN topics ON topics.id = topic WHERE found.id = ?
"""
_ACCEPTED = """
SELECT source, name, partition, offset, timestamp_ms FROM accepted_{number} JOIN topics ON topics.id = topic
WHERE key = ? AND source = ifnull(?, source) ORDER BY timestamp_ms DESC LIMIT 1
"""


def _check_header(path: Path) -> None:
    """Refuse a file that is none of SQLite's: a wrong path must not cost anybody a file.

    Zeros are what a file system may leave of an index after a loss of power.
    """
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        message = f"gateway.results_view.path: {path}: {error.strerror}"
        raise ConfigError(message) from error
    if header.strip(b"\0") and header != _HEADER:
        raise _foreign(path)


def _foreign(path: Path) -> ConfigError:
    return ConfigError(
        f"gateway.results_view.path: {path} is no index of results, and would be overwritten: name another file"
    )


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _hold(path: Path) -> "contextlib.ExitStack":
    """Keep other processes away from the file until the stack is closed."""
    stack = contextlib.ExitStack()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(path.with_name(path.name + ".lock").open("a"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stack.close()
        message = f"gateway.results_view.path: {path} is used by another gateway; each process needs a file of its own"
        raise ConfigError(message) from error
    except OSError as error:
        stack.close()
        message = f"gateway.results_view.path: {path}: {error.strerror}"
        raise ConfigError(message) from error
    return stack


def _one(reader: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Return the row; None also when the segment was dropped a moment ago, or the file is damaged."""
    try:
        row: tuple[Any, ...] | None = reader.execute(query, values).fetchone()
    except sqlite3.DatabaseError:
        return None
    return row


def _is_ours(result_id: str) -> bool:
    return len(result_id) == _ID_CHARS and result_id.replace("-", "").isalnum()


def _packed(result_id: str) -> bytes:
    try:
        return bytes.fromhex(result_id.replace("-", ""))
    except ValueError:
        return result_id.encode()


def _key(owner: str, event_id: str) -> bytes:
    return hashlib.sha256(f"{owner}\n{event_id}".encode()).digest()[:_KEY_BYTES]
