"""An index on disk of which outcome lies where: SQLite, with bounded memory and a bounded file; no outcomes in it.

Rows go into segments, tables of some hundred thousand rows each, so that inserting stays inside the page cache and the
oldest are dropped whole. How far the topics have been read is written in the same transaction as what was read there:
after a restart, also by SIGKILL, reading goes on where the rows end. Kafka is the truth: an index that is missing, of
another version or damaged is made anew, also while it is used, and whoever fetches a record checks that it is the one.

Blocking: every call reads or writes the disk. Writing is for one thread, looking up for any number.
Source: SQLite 3, WAL mode (https://www.sqlite.org/wal.html), WITHOUT ROWID tables (checked 2026-11).
"""

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.codec import Position
from contracts.errors import Busy, ConfigError
from contracts.logs import logger
from contracts.topics import is_event_topic
from gateways.egress.index_file import check_header, foreign, hold, pragma, primary_code, remove, unusable
from gateways.egress.outcomes import Accepted, Noted, Place, Written

VERSION = 1
SEGMENT_ROWS = 200_000
# A row of either table takes at most so much, so that a small file still has several segments (measured: 60 to 150).
_ROW_BYTES = 200
_SEGMENTS_AT_LEAST = 8
_CACHE_KIB = 8 * 1024
_ID_CHARS = 36
_KEY_BYTES = 16
# Of what is in the file: pages and tables that are not as they were written. Others are of its disk, and may pass.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT})
_OF_DISK = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_CONSEQUENCE = "it is made anew from the topics; look-ups without a ticket are 503 until it is"
# A table that every index has had.
_A_TABLE = "read_to"
_SMALL_TABLES = ("meta", "topics", "read_to", "logs", "segments")

_log = logger("gateway")


class IndexUnreadable(Busy):
    """Raise when the file says nothing now: its disk fails, or it is damaged and will be made anew."""


class _Reader:
    """A thread's connection; whoever makes the file anew closes it between two questions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.is_closed = False

    def close(self) -> None:
        with self.lock:
            self.is_closed = True
            self.connection.close()


class ResultIndex:
    """The index.

    Args:
        path: its file; the folder is made.
        max_bytes: of the file; the oldest segments are dropped to keep it.

    Attributes:
        is_damaged: a look-up has met something that is no index; `make_anew` mends it.

    Raises:
        ConfigError: the file cannot be used, or another process uses it.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._segment_rows = min(SEGMENT_ROWS, max_bytes // (_ROW_BYTES * _SEGMENTS_AT_LEAST))
        self._local = threading.local()
        self._readers: list[_Reader] = []
        self._opening = threading.Lock()
        check_header(path)
        self._lock = hold(path)
        self.is_damaged = False
        try:
            self._begin()
        except ConfigError:
            self._lock.close()
            raise

    def _begin(self) -> None:
        self._writer = self._open()
        # Newest first; (number, rows). Read by other threads: replaced, never changed.
        self._segments: tuple[tuple[int, int], ...] = tuple(
            self._writer.execute("SELECT id, rows FROM segments ORDER BY id DESC")
        )
        # What those who look up go by: a new segment is there for them once its transaction is over.
        self._shown = self._segments
        self._topics: dict[str, int] = dict(self._writer.execute("SELECT name, id FROM topics"))
        self.lost_before_ms = self._meta("lost_before_ms")

    def close(self) -> None:
        """Close the file and let go of it."""
        self._close_connections()
        self._lock.close()

    def _close_connections(self) -> None:
        # All of them: a file that is removed takes its room until the last one is closed.
        while self._readers:
            self._readers.pop().close()
        self._writer.close()

    @property
    def used_bytes(self) -> int:
        """Return what rows and indexes take of the file."""
        pages, free, size = (pragma(self._writer, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def note_damage(self, error: sqlite3.Error) -> bool:
        """Tell whether an error is of the file itself, so that only a new one helps; note it."""
        is_damage = primary_code(error) in _DAMAGE or not self._path.exists()
        if is_damage and not self.is_damaged:
            _log.error("results.index_damaged", path=str(self._path), error=str(error), consequence=_CONSEQUENCE)
            self.is_damaged = True
        return is_damage

    def make_anew(self) -> None:
        """Begin an empty file in the place of this one, which is damaged; look-ups fail meanwhile. For who writes.

        Raises:
            ConfigError, sqlite3.Error, OSError: the disk does not allow it; to be tried again.
        """
        self.is_damaged = True
        # Nobody may open what is half removed: an old log would be taken for the new file's.
        with self._opening:
            self._close_connections()
            remove(self._path)
            self._begin()
            self.is_damaged = False

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
        notes = [self._packed_note(one) for one in accepted if _is_kafkas(one.accepted.position)]
        newest_ms = max([*(one.timestamp_ms for one in outcomes), *(note[5] for note in notes)], default=0)
        with self._transaction() as writer:
            number = self._segment(writer, len(rows) + len(notes), newest_ms)
            writer.executemany(f"INSERT OR REPLACE INTO outcomes_{number} VALUES (?, ?, ?, ?)", rows)  # noqa: S608 - a number of ours
            writer.executemany(_NOTE.format(number=number), notes)
            offsets = [(self._topic(topic), part, offset) for (topic, part), offset in next_offsets.items()]
            writer.executemany("INSERT OR REPLACE INTO read_to VALUES (?, ?, ?)", offsets)
            self._prune(writer, keep_since_ms)

    def place_of(self, result_id: str) -> Place | None:
        """Return where an outcome lies; the newest one of an event that was done again.

        Raises:
            IndexUnreadable: the file cannot be read.
        """
        if not _is_ours(result_id):
            return None
        found = next(self._rows(_PLACE, (_packed(result_id),)), None)
        return None if found is None else Place(*found)

    def accepted(self, owner: str, event_id: str, source: str | None) -> Accepted | None:
        """Return the newest event of a caller with this id, of this source when given.

        Raises:
            IndexUnreadable: as `place_of`.
        """
        # Not the newest segment's: the outcome of an earlier event under this id may have come since, and named it.
        rows = self._rows(_ACCEPTED, (_key(owner, event_id), source))
        found = max(rows, key=lambda row: (is_event_topic(row[1]), row[-1]), default=None)
        return None if found is None else Accepted(found[0], Position(*found[1:]))

    def _rows(self, query: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """Return the row of each segment that has one, of the newest first.

        Raises:
            IndexUnreadable: the file cannot be read.
        """
        reader: _Reader | None = None
        try:
            reader = self._reader()
            for number, _ in self._shown:
                if (found := self._one(reader, number, query, values)) is not None:
                    yield found
        except sqlite3.Error as error:
            # What was closed meanwhile was of the former file.
            if reader is None or not reader.is_closed:
                self.note_damage(error)
            message = f"the index of results cannot be read: {error}"
            raise IndexUnreadable(message) from error

    def _one(self, reader: _Reader, number: int, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Return a segment's row; None also when the segment was dropped a moment ago."""
        try:
            with reader.lock:
                row: tuple[Any, ...] | None = reader.connection.execute(query.format(number=number), values).fetchone()
        except sqlite3.OperationalError:
            if number in dict(self._segments):
                raise
            return None
        return row

    def _open(self) -> sqlite3.Connection:
        try:
            return self._opened()
        except sqlite3.DatabaseError as error:
            _log.warning("results.index_made_anew", path=str(self._path), error=str(error))
        try:
            remove(self._path)
            return self._opened()
        except (sqlite3.DatabaseError, OSError) as error:
            raise unusable(self._path, error) from error

    def _opened(self) -> sqlite3.Connection:
        with contextlib.ExitStack() as undo:
            try:
                connection = self._connect()
                undo.callback(connection.close)
                tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            except sqlite3.OperationalError as error:
                if primary_code(error) in _OF_DISK:
                    raise
                # Locked, or not for us: it may be the database of a program that runs, and must not be removed.
                raise unusable(self._path, error) from error
            if tables and _A_TABLE not in tables:
                raise foreign(self._path)
            if (version := pragma(connection, "user_version")) not in {0, VERSION}:
                message = f"version {version}, this program writes {VERSION}"
                raise sqlite3.DatabaseError(message)
            connection.executescript(f"PRAGMA journal_mode = WAL; {_SCHEMA}; PRAGMA user_version = {VERSION};")
            for table in _SMALL_TABLES:
                # Damage in what every start reads is met now.
                connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - a name of ours
            undo.pop_all()
        return connection

    def _connect(self, mode: str = "rwc") -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode={mode}"
        # Closed by another thread than the one that used it.
        connection = sqlite3.connect(uri, timeout=5.0, isolation_level=None, check_same_thread=False, uri=True)
        try:
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.create_function("is_event_topic", 1, is_event_topic, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _reader(self) -> _Reader:
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None or reader.is_closed:
            with self._opening:
                # Of a file that somebody has removed it makes no empty one, in which nothing would be found.
                reader = self._local.reader = _Reader(self._connect("rw"))
                self._readers.append(reader)
        return reader

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        segments, topics = self._segments, dict(self._topics)
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
            self._shown = self._segments
        except BaseException:
            self._segments, self._topics = segments, topics
            # A full disk has ended it already; a second error would hide the first.
            if self._writer.in_transaction:
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
            number = len(self._topics) + 1
            self._writer.execute("INSERT INTO topics VALUES (?, ?)", (number, name))
            # Afterwards: rows of a topic that the file does not name are never found.
            self._topics[name] = number
        return number

    def _packed_place(self, place: Place) -> tuple[int, int, int]:
        return self._topic(place.topic), place.partition, place.offset

    def _packed_note(self, note: Noted) -> tuple[bytes, str, int, int, int, int]:
        source, at, _ = note.accepted
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
_NOTE = """
INSERT INTO accepted_{number} VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key, source) DO UPDATE SET
  topic = excluded.topic, partition = excluded.partition, offset = excluded.offset, timestamp_ms = excluded.timestamp_ms
WHERE ((SELECT is_event_topic(name) FROM topics WHERE id = excluded.topic), excluded.timestamp_ms)
  >= ((SELECT is_event_topic(name) FROM topics WHERE id = topic), timestamp_ms)
"""
_PLACE = """
SELECT name, partition, offset FROM outcomes_{number} found JOIN topics ON topics.id = topic WHERE found.id = ?
"""
_ACCEPTED = """
SELECT source, name, partition, offset, timestamp_ms FROM accepted_{number} JOIN topics ON topics.id = topic
WHERE key = ? AND source = ifnull(?, source) ORDER BY timestamp_ms DESC LIMIT 1
"""


def _is_ours(result_id: str) -> bool:
    return len(result_id) == _ID_CHARS and result_id.replace("-", "").isalnum()


def _is_kafkas(position: Position) -> bool:
    """Tell whether its numbers are of 64 bits: a foreign record may say anything of what it answers."""
    return all(number.bit_length() < 64 for number in position[1:])  # noqa: PLR2004 - signed


def _packed(result_id: str) -> bytes:
    try:
        return bytes.fromhex(result_id.replace("-", ""))
    except ValueError:
        return result_id.encode()


def _key(owner: str, event_id: str) -> bytes:
    return hashlib.sha256(f"{owner}\n{event_id}".encode()).digest()[:_KEY_BYTES]
