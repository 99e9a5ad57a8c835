"""The index on disk: what it finds, what survives, what is dropped."""

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from contracts.codec import Position
from contracts.envelope import result_id
from contracts.errors import ConfigError
from gateways.egress.index import VERSION, IndexUnreadable, ResultIndex
from gateways.egress.outcomes import Accepted, Noted, Place, Written

MEGABYTE = 2**20
RESULTS, EVENTS = "p.results.v1", "p.events.standard.v1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view" / "index.sqlite"


@pytest.fixture
def index(path: Path) -> Iterator[ResultIndex]:
    index = ResultIndex(path, 64 * MEGABYTE)
    yield index
    index.close()


def written(number: int, timestamp_ms: int = 1000) -> Written:
    return Written(result_id("crm", f"e{number}"), Place(RESULTS, number % 4, number), timestamp_ms)


def noted(number: int, source: str = "crm", timestamp_ms: int = 1000, owner: str = "crm") -> Noted:
    return Noted(owner, f"e{number}", Accepted(source, Position(EVENTS, number % 4, number, timestamp_ms)))


def fill(index: ResultIndex, first: int, count: int, timestamp_ms: int = 1000, keep_since_ms: int = 0) -> None:
    numbers = range(first, first + count)
    outcomes = [written(number, timestamp_ms) for number in numbers]
    index.write(
        outcomes,
        [noted(number, timestamp_ms=timestamp_ms) for number in numbers],
        {(RESULTS, 0): first + count},
        keep_since_ms,
    )


def test_an_outcome_is_found_by_its_id(index: ResultIndex) -> None:
    fill(index, 0, 10)

    assert index.place_of(result_id("crm", "e7")) == Place(RESULTS, 3, 7)
    assert index.place_of(result_id("crm", "other")) is None
    assert index.place_of("not-an-id-of-ours") is None


def test_a_log_that_was_made_anew_is_read_from_its_beginning_and_the_others_are_not(
    path: Path, index: ResultIndex
) -> None:
    fill(index, 0, 10)
    index.write([], [], {(EVENTS, 0): 7, (RESULTS, 1): 3}, 0)
    index.note_logs({RESULTS: "a", EVENTS: "b"}, [])
    assert index.next_offsets() == {(RESULTS, 0): 10, (RESULTS, 1): 3, (EVENTS, 0): 7}

    index.note_logs({RESULTS: "c", EVENTS: "b"}, [RESULTS])

    index.close()
    again = ResultIndex(path, 64 * MEGABYTE)
    assert again.next_offsets() == {(EVENTS, 0): 7}
    assert again.log_ids() == {RESULTS: "c", EVENTS: "b"}
    again.close()


def test_the_newest_outcome_of_an_event_counts(index: ResultIndex) -> None:
    """A dead letter that was put back has a second one."""
    fill(index, 0, 10)
    index.write([Written(result_id("crm", "e7"), Place(RESULTS, 3, 99), 2000)], [], {}, 0)

    assert index.place_of(result_id("crm", "e7")) == Place(RESULTS, 3, 99)


def test_an_event_is_found_by_its_owner_and_id(index: ResultIndex) -> None:
    index.write([], [noted(1), noted(1, "crm/eu", 3000), noted(1, "crm/us", 2000), noted(1, owner="billing")], {}, 0)

    found = index.accepted("crm", "e1", None)
    assert found == Accepted("crm/eu", Position(EVENTS, 1, 1, 3000)), "the newest"
    assert index.accepted("crm", "e1", "crm/us") == Accepted("crm/us", Position(EVENTS, 1, 1, 2000))
    assert index.accepted("crm", "e1", "other") is None
    assert index.accepted("nobody", "e1", None) is None


@pytest.mark.parametrize("is_in_one_segment", [True, False])
def test_of_two_events_of_an_id_the_newer_is_found_also_when_the_other_ends_later(
    index: ResultIndex, monkeypatch: pytest.MonkeyPatch, is_in_one_segment: bool
) -> None:
    newer, earlier = noted(7, timestamp_ms=2000), noted(7, timestamp_ms=1000)
    monkeypatch.setattr(index, "_segment_rows", 100 if is_in_one_segment else 1)
    for one in (earlier, newer, earlier):
        index.write([], [one], {}, 0)

    assert len(index._segments) == (1 if is_in_one_segment else 3)
    assert index.accepted("crm", "e7", None) == index.accepted("crm", "e7", "crm") == newer.accepted


@pytest.mark.parametrize("is_in_one_segment", [True, False])
@pytest.mark.parametrize("is_known_first", [True, False])
def test_where_an_event_went_on_does_not_take_the_place_of_where_it_was_accepted(
    index: ResultIndex, monkeypatch: pytest.MonkeyPatch, is_in_one_segment: bool, is_known_first: bool
) -> None:
    own = noted(7, timestamp_ms=1000)
    parked = Noted("crm", "e7", Accepted("crm", Position("p.retries.v1", 1, 9, 2000)))
    monkeypatch.setattr(index, "_segment_rows", 100 if is_in_one_segment else 1)
    index.write([], [parked], {}, 0)
    assert index.accepted("crm", "e7", "crm") == parked.accepted, "where nothing else is known"
    for one in (own, parked) if is_known_first else (parked, own):
        index.write([], [one], {}, 0)

    assert index.accepted("crm", "e7", None) == index.accepted("crm", "e7", "crm") == own.accepted


@pytest.mark.parametrize("field", ["partition", "offset", "timestamp_ms"])
def test_an_answer_to_a_place_beyond_kafkas_numbers_holds_nothing_up(index: ResultIndex, field: str) -> None:
    sound, far = noted(7), cast("Any", {field: 2**63})
    odd = sound.accepted.position._replace(**far)

    index.write([], [Noted("crm", "odd", Accepted("crm", odd)), sound], {(RESULTS, 0): 1}, 0)

    assert index.accepted("crm", "odd", None) is None
    assert index.accepted("crm", "e7", None) == sound.accepted
    assert index.next_offsets() == {(RESULTS, 0): 1}


def test_rows_and_offsets_survive_a_restart_together(path: Path, index: ResultIndex) -> None:
    fill(index, 0, 10)
    index.close()
    again = ResultIndex(path, 64 * MEGABYTE)

    assert again.next_offsets() == {(RESULTS, 0): 10}
    assert again.place_of(result_id("crm", "e7")) == Place(RESULTS, 3, 7)
    again.close()


def test_a_write_that_fails_leaves_nothing(index: ResultIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError

    monkeypatch.setattr(index, "_prune", fail)
    with pytest.raises(sqlite3.OperationalError):
        fill(index, 10, 10)
    monkeypatch.undo()

    assert index.next_offsets() == {}
    assert index.place_of(result_id("crm", "e15")) is None
    fill(index, 10, 10)
    assert index.place_of(result_id("crm", "e15")) == Place(RESULTS, 3, 15)


def test_a_topic_that_could_not_be_noted_is_noted_by_the_next_write(index: ResultIndex) -> None:
    """As on a full disk, before anything of the topic is in the file."""

    def refuse(action: int, table: str | None, *_: object) -> int:
        return sqlite3.SQLITE_DENY if (action, table) == (sqlite3.SQLITE_INSERT, "topics") else sqlite3.SQLITE_OK

    index._writer.set_authorizer(refuse)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        fill(index, 0, 10)
    index._writer.set_authorizer(None)
    fill(index, 0, 10)

    assert index.place_of(result_id("crm", "e7")) == Place(RESULTS, 3, 7)
    assert index.accepted("crm", "e7", None) == noted(7).accepted
    assert index.next_offsets() == {(RESULTS, 0): 10}


def test_the_file_keeps_its_size_and_says_what_it_does_not_know_any_more(path: Path) -> None:
    index = ResultIndex(path, 2 * MEGABYTE)
    for batch in range(30):
        fill(index, batch * 1000, 1000, timestamp_ms=batch)

    assert index.used_bytes <= 2.5 * MEGABYTE
    assert path.stat().st_size <= 4 * MEGABYTE
    assert index.place_of(result_id("crm", "e1")) is None
    assert index.place_of(result_id("crm", "e29999")) is not None
    assert 0 < index.lost_before_ms < 29
    lost_before_ms = index.lost_before_ms
    index.close()
    again = ResultIndex(path, 2 * MEGABYTE)
    assert again.lost_before_ms == lost_before_ms
    again.close()


def test_what_is_older_than_the_retention_is_dropped(path: Path) -> None:
    index = ResultIndex(path, 2 * MEGABYTE)
    for batch in range(4):
        fill(index, batch * 1000, 1000, timestamp_ms=1000 * batch)
    fill(index, 5000, 1, timestamp_ms=5000, keep_since_ms=2500)

    assert index.place_of(result_id("crm", "e1")) is None
    assert index.place_of(result_id("crm", "e3001")) is not None
    assert index.lost_before_ms == 0, "who asks for older ones is told by the retention"
    index.close()


def elsewhere(work: Callable[[], object]) -> object:
    """Return what it says on another thread, which has no connection yet."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def is_damaged(index: ResultIndex) -> bool:
    return index.is_damaged


def spoil(path: Path, index: ResultIndex) -> None:
    """Overwrite the file, as a disk may do it."""
    index._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.write(b"no database" * (size // 11))


@pytest.mark.parametrize("harm", ["spoilt", "removed", "emptied"])
def test_a_file_that_is_damaged_while_it_is_used_says_nothing_until_it_is_made_anew(
    path: Path, index: ResultIndex, harm: str
) -> None:
    fill(index, 0, 10)
    assert index.place_of(result_id("crm", "e7")) is not None
    if harm == "spoilt":
        spoil(path, index)
    elif harm == "removed":
        path.unlink()
    else:
        index._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.write_bytes(b"")

    for ask in (lambda: index.place_of(result_id("crm", "e7")), lambda: index.accepted("crm", "e7", None)):
        with pytest.raises(IndexUnreadable):
            elsewhere(ask)
    assert is_damaged(index)
    index.make_anew()

    assert not is_damaged(index)
    assert index.next_offsets() == {}
    assert index.place_of(result_id("crm", "e7")) is None
    fill(index, 0, 10)
    assert index.place_of(result_id("crm", "e7")) is not None
    assert elsewhere(lambda: index.accepted("crm", "e7", None)) is not None
    opened = [str(name.readlink()) for name in Path("/proc/self/fd").iterdir() if name.is_symlink()]
    assert not [name for name in opened if name.startswith(str(path)) and name.endswith("(deleted)")], "it takes room"


def test_what_fails_by_the_disk_is_no_damage(index: ResultIndex) -> None:
    fill(index, 0, 10)
    index._writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError, match="full") as caught:
        fill(index, 10, 1000)

    assert not index.note_damage(caught.value)
    assert index.place_of(result_id("crm", "e7")) is not None
    assert not index.is_damaged


def test_a_segment_that_is_being_made_is_no_damage(index: ResultIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(*_: object) -> None:
        seen.append(elsewhere(lambda: index.place_of(result_id("crm", "e7"))))

    monkeypatch.setattr(index, "_prune", look)
    fill(index, 0, 10)

    assert (seen, index.is_damaged) == ([None], False)
    assert index.place_of(result_id("crm", "e7")) is not None


def test_a_new_file_that_cannot_be_made_yet_is_tried_again(index: ResultIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("gateways.egress.index.remove", fail)
    with pytest.raises(OSError, match="read-only"):
        index.make_anew()
    assert is_damaged(index)
    monkeypatch.undo()
    index.make_anew()

    fill(index, 0, 10)
    assert index.place_of(result_id("crm", "e7")) is not None


def test_two_processes_cannot_use_one_file(path: Path, index: ResultIndex) -> None:
    assert index.next_offsets() == {}
    with pytest.raises(ConfigError, match="used by another gateway"):
        ResultIndex(path, 64 * MEGABYTE)


@pytest.mark.parametrize("content", [b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 8192, b""])
def test_a_file_that_is_damaged_is_made_anew(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    index = ResultIndex(path, 64 * MEGABYTE)
    fill(index, 0, 10)

    assert index.place_of(result_id("crm", "e7")) is not None
    index.close()


def test_a_file_that_is_something_else_is_refused_and_keeps_its_content(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"version: 1\n")
    with pytest.raises(ConfigError, match=r"gateway\.results_view\.path: .* is no index of results.*another file"):
        ResultIndex(path, 64 * MEGABYTE)

    assert path.read_bytes() == b"version: 1\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_a_database_of_somebody_else_is_refused_and_keeps_its_tables(path: Path, version: int) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript(f"CREATE TABLE theirs (a); PRAGMA user_version = {version};")
    with pytest.raises(ConfigError, match="is no index of results"):
        ResultIndex(path, 64 * MEGABYTE)

    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


def test_a_database_that_somebody_has_locked_is_refused_and_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be looked at while another program holds it, and may be that program's."""
    connect = sqlite3.connect
    path.parent.mkdir()
    with contextlib.closing(connect(path, isolation_level=None)) as other:
        other.executescript("PRAGMA locking_mode = EXCLUSIVE; CREATE TABLE theirs (a); INSERT INTO theirs VALUES (1);")
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **(more | {"timeout": 0.0})))
        before = path.stat().st_ino
        with pytest.raises(ConfigError, match=r"gateway\.results_view\.path: .*locked"):
            ResultIndex(path, 64 * MEGABYTE)

        assert path.stat().st_ino == before


@pytest.mark.parametrize("table", ["meta", "topics", "read_to", "logs", "segments"])
def test_damage_in_what_a_start_reads_is_met_by_the_start(path: Path, table: str) -> None:
    with contextlib.closing(ResultIndex(path, 64 * MEGABYTE)) as index:
        fill(index, 0, 10)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)

    with contextlib.closing(ResultIndex(path, 64 * MEGABYTE)) as index:
        assert (index.log_ids(), index.next_offsets()) == ({}, {})
        fill(index, 0, 10)
        assert index.place_of(result_id("crm", "e7")) is not None


def test_a_folder_in_place_of_the_file_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.results_view\.path: .*: Is a directory"):
        ResultIndex(tmp_path, 64 * MEGABYTE)


def test_a_file_of_another_version_is_made_anew(path: Path, index: ResultIndex) -> None:
    fill(index, 0, 10)
    index._writer.execute(f"PRAGMA user_version = {VERSION + 1}")
    index.close()
    again = ResultIndex(path, 64 * MEGABYTE)

    assert again.next_offsets() == {}
    again.close()


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"gateway\.results_view\.path"):
        ResultIndex(tmp_path / "file" / "index.sqlite", 64 * MEGABYTE)
