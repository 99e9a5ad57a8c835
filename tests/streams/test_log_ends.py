"""Logs that lose what was read of them: found by the last record, and by the epochs of their leaders."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.subscription_state import TopicPartitionState

from streams import log_ends
from streams.log_ends import EndWatch, Run, read_below
from streams.unpacking import Piece

AT = TopicPartition("events", 0)


def record(offset: int, timestamp: int = 1000) -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp)


class Log:
    """A log under aiokafka's eyes: a worker has read up to offset 6, and reads on at 7.

    Attributes:
        told: how often it was said to be cut.
        handed: what came of it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, begin: int = 0, has_read: bool = True) -> None:
        self.now_s, self.begin, self.told = 0.0, begin, 0
        self.handed: list[int] = []
        monkeypatch.setattr(log_ends, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        self.watch = EndWatch(self._tell)
        self.state = TopicPartitionState(None)
        self.state.seek(7)
        if has_read:
            self.fetch(record(5), record(6))
            self.handed.clear()

    def _tell(self, tp: object) -> None:
        assert tp == AT
        self.told += 1

    def fetch(self, *records: Any) -> None:
        self.handed += [one.offset for one in self.watch.take({AT: list(records)}).get(AT, [])]

    def fails(self) -> None:
        """Have a fetch fail; the broker is away."""
        asked = self.state.position
        self.watch.after_failure(SimpleNamespace(state_value=lambda _tp: self.state), [("events", [(0, asked, 1)])])

    def brings_nothing(self, seconds: float = 0.0) -> list[Any]:
        """Have a fetch find nothing where it reads on; return what is to be asked for."""
        self.now_s += seconds
        assignment = SimpleNamespace(state_value=lambda _tp: self.state)
        self.watch.after_fetch(assignment, [("events", [(0, self.state.position, 1)])])
        return list(self.watch.missed().values())

    def is_out_of_range(self, seconds: float = 0.0) -> bool:
        """Have a fetch find that the log does not have what is asked for; aiokafka goes to its beginning."""
        self.now_s += seconds
        asked = self.state.position
        self.state.await_reset(-2)
        self.watch.after_fetch(SimpleNamespace(state_value=lambda _tp: self.state), [("events", [(0, asked, 1)])])
        self.state.reset_to(self.begin)
        return self.watch.after_reset(AT, self.state)


async def test_a_log_that_seems_short_for_a_moment_is_read_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    short = log.is_out_of_range(), log.is_out_of_range(2.9)
    at = log.state.position
    log.fetch(record(6), record(7))
    log.now_s += 60
    log.fetch(record(8))

    assert (short, at, log.handed, log.told) == ((True, True), 6, [7, 8], 0)


async def test_a_log_that_has_another_record_in_the_place_of_the_last_one_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.is_out_of_range()
    log.fetch(record(6, timestamp=2000), record(7, timestamp=2000))
    log.fetch(record(8))

    assert (log.handed, log.told, log.watch.cut) == ([], 1, {AT})


@pytest.mark.parametrize("has_read", [True, False])
async def test_a_log_that_stays_short_is_cut(monkeypatch: pytest.MonkeyPatch, *, has_read: bool) -> None:
    log = Log(monkeypatch, has_read=has_read)
    told = [(log.is_out_of_range(seconds), log.told)[1] for seconds in (0, 2.9, 0.2, 0.2)]

    assert told == [0, 0, 1, 2]
    assert log.state.position == (6 if has_read else 7)


async def test_the_last_record_is_looked_at_again_when_the_broker_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.fails()
    log.fails()
    at = log.state.position
    log.fetch(record(6), record(7))
    log.fetch(record(8))

    assert (at, log.handed, log.told) == (6, [7, 8], 0)


async def test_a_last_record_that_does_not_come_is_asked_for_every_three_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.watch.runs[AT] = (Run(5, 6, 1),)
    at_first = log.brings_nothing(60)
    log.fails()
    asked = [log.brings_nothing(seconds) for seconds in (60, 2.9, 0.2, 2.9, 0.2)]
    log.fails()
    away = log.brings_nothing(60)
    log.fetch(record(6))

    assert (at_first, asked, away) == ([], [[], [], [(7, 1)], [], [(7, 1)]], [])
    assert (log.brings_nothing(60), log.told) == ([], 0)


async def test_a_last_record_that_comes_while_it_is_asked_for_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.fails()
    log.brings_nothing()
    log.fetch(record(6))
    log.watch.found_missing(AT)

    assert log.told == 0


@pytest.mark.parametrize("is_away", [True, False])
async def test_where_nothing_was_handed_out_it_is_read_again_from_where_it_began(
    monkeypatch: pytest.MonkeyPatch, *, is_away: bool
) -> None:
    """What was passed over were markers and aborted records, and other events may have their offsets."""
    log = Log(monkeypatch, has_read=False)
    log.brings_nothing()
    log.state.seek(12)
    if is_away:
        log.fails()
    else:
        log.is_out_of_range()
    at = log.state.position
    log.watch.sought(AT)
    log.state.seek(12)
    log.fails()

    assert (at, log.state.position) == (7, 12)


async def test_a_log_that_was_cut_and_has_grown_again_while_its_broker_was_away_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.fails()
    log.fetch(record(6, timestamp=2000), record(7, timestamp=2000))

    assert (log.handed, log.told) == ([], 1)


async def test_a_log_that_does_not_have_the_last_record_any_more_but_later_ones_is_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compaction may take it."""
    log = Log(monkeypatch)
    log.fails()
    log.fetch(record(9))

    assert (log.handed, log.told) == ([9], 0)


async def test_a_partition_that_is_read_again_from_before_is_not_led_past_what_is_to_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(monkeypatch)
    log.state.seek(6)
    log.fails()
    log.fetch(record(6), record(7))

    assert log.handed == [6, 7]


async def test_a_log_whose_beginning_was_deleted_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, begin=20)
    is_short = log.is_out_of_range(), log.is_out_of_range(60)
    log.fetch(record(20))

    assert (is_short, log.handed, log.told) == ((False, False), [20], 0)


@pytest.mark.parametrize(
    ("at", "begin", "has_read", "told"),
    [
        pytest.param(7, 20, True, [(7, 20)], id="while it waits"),
        pytest.param(7, 20, False, [(7, 20)], id="behind the commit"),
        pytest.param(6, 7, True, [], id="nothing but what was read"),
        pytest.param(6, 9, True, [(7, 9)], id="beyond what was read"),
        pytest.param(0, 20, False, [], id="begun again"),
        pytest.param(7, 0, True, [], id="a log that seems short"),
    ],
)
async def test_records_that_were_deleted_before_they_were_read_are_told(
    monkeypatch: pytest.MonkeyPatch, at: int, begin: int, told: list[tuple[int, int]], *, has_read: bool
) -> None:
    """They were accepted, and have no outcome: that must not pass in silence."""
    deleted: list[tuple[int, int]] = []
    monkeypatch.setattr(log_ends, "tell_deleted", lambda _tp, offset, end: deleted.append((offset, end)))
    log = Log(monkeypatch, begin=begin, has_read=has_read)
    log.state.seek(at)
    log.is_out_of_range()

    assert deleted == told


async def test_what_is_fetched_again_is_not_passed_when_the_log_seemed_too_short_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was fetched at 3 is in hand, and aiokafka has asked for 7."""
    log = Log(monkeypatch, has_read=False)
    log.state.await_reset(-2)
    log.watch.after_fetch(SimpleNamespace(state_value=lambda _tp: log.state), [("events", [(0, 7, 1)])])
    log.watch.read_again(AT, log.state, 3)

    assert (log.watch.after_reset(AT, log.state), log.state.position) == (False, 3)


async def test_what_is_fetched_again_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.fails()
    log.state.consumed_to(8)
    log.watch.read_again(AT, log.state, 6)
    at = log.state.position
    log.fetch(record(6, timestamp=2000), record(7, timestamp=2000))

    assert (at, log.handed, log.told) == (6, [], 1)


async def test_what_is_read_again_from_before_is_not_led_on(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.fails()
    log.watch.read_again(AT, log.state, 7)

    assert log.state.position == 6


async def test_a_partition_that_is_told_where_to_be_read_from_is_not_led_back(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, has_read=False)
    log.is_out_of_range()
    log.watch.moved(AT)
    log.state.seek(0)

    assert not log.watch.after_reset(AT, log.state)
    assert log.state.position == 0


# --- epochs


def piece(*offsets: int, epochs: tuple[tuple[int, int], ...] = ()) -> Piece:
    found = Piece(record(offset) for offset in offsets)
    found.epochs = epochs
    return found


class Epochs:
    """A watch that knows the epochs of what it hands out."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.watch = EndWatch(self.told.append)

    def take(self, *offsets: int, epochs: tuple[tuple[int, int], ...]) -> tuple[Run, ...]:
        self.watch.take({AT: piece(*offsets, epochs=epochs)})
        return self.watch.runs.get(AT, ())

    def doubted(self, *offsets: int, epoch: int, before: tuple[int, int] | None = None) -> tuple[int, int] | None:
        found = {AT: piece(*offsets, epochs=((0, epoch),))}
        return self.watch.doubted(found, {AT: before} if before else {}).get(AT)


def test_records_of_one_epoch_are_one_run_over_gaps_and_fetches() -> None:
    epochs = Epochs()
    epochs.take(3, 4, epochs=((2, 1),))

    assert epochs.take(7, 9, epochs=((5, 1),)) == (Run(3, 9, 1),)


def test_a_run_ends_at_the_last_record_before_the_next_epoch() -> None:
    """What lies between, a transaction's marker say, may belong to either."""
    assert Epochs().take(3, 4, 8, 9, epochs=((3, 1), (7, 4))) == (Run(3, 4, 1), Run(8, 9, 4))


def test_an_epoch_without_a_record_is_no_run() -> None:
    assert Epochs().take(3, 9, epochs=((3, 1), (5, 2), (7, 4))) == (Run(3, 3, 1), Run(9, 9, 4))


def test_records_without_an_epoch_are_no_run() -> None:
    assert Epochs().take(3, epochs=()) == ()


async def test_a_record_that_is_looked_at_again_begins_no_run_anew() -> None:
    epochs = Epochs()
    epochs.take(3, 4, epochs=((3, 1),))
    state = TopicPartitionState(None)
    state.seek(5)
    epochs.watch.after_failure(SimpleNamespace(state_value=lambda _tp: state), [("events", [(0, 5, 1)])])

    assert epochs.take(4, 5, epochs=((3, 1), (5, 2))) == (Run(3, 4, 1), Run(5, 5, 2))


def test_where_another_leader_goes_on_the_end_of_the_former_one_is_to_be_asked_for() -> None:
    epochs = Epochs()
    epochs.take(3, 4, epochs=((3, 1),))

    assert (epochs.doubted(5, epoch=1), epochs.doubted(5, epoch=2)) == (None, (5, 1))


def test_what_was_read_before_the_assignment_counts_until_something_is_read() -> None:
    epochs = Epochs()
    first = epochs.doubted(8, epoch=2, before=(8, 1)), epochs.doubted(8, epoch=1, before=(8, 1))
    epochs.take(8, epochs=((8, 2),))

    assert (first, epochs.doubted(9, epoch=2, before=(8, 1))) == (((8, 1), None), None)


def test_a_partition_that_is_told_where_to_be_read_from_has_no_epoch_before() -> None:
    epochs = Epochs()
    epochs.take(3, 4, epochs=((3, 1),))
    epochs.watch.sought(AT)

    assert epochs.doubted(0, epoch=2) is None


def test_a_log_that_was_found_cut_is_not_asked_for_again_and_hands_out_nothing() -> None:
    epochs = Epochs()
    epochs.take(3, 4, epochs=((3, 1),))
    epochs.watch.found_cut(AT)

    assert epochs.doubted(5, epoch=2) is None
    assert epochs.watch.take({AT: piece(5, epochs=((5, 2),))}) == {}
    assert epochs.told == [AT]


@pytest.mark.parametrize(
    ("offset", "read"), [(3, None), (4, (4, 1)), (6, (6, 1)), (7, (6, 1)), (8, (6, 1)), (9, (9, 2)), (20, (10, 2))]
)
def test_what_was_read_below_a_commit(offset: int, read: tuple[int, int] | None) -> None:
    assert read_below((Run(3, 5, 1), Run(8, 9, 2)), offset) == read


def test_only_the_last_runs_are_kept() -> None:
    epochs = Epochs()
    runs = [epochs.take(number, epochs=((number, number),)) for number in range(20)][-1]

    assert (len(runs), runs[-1]) == (8, Run(19, 19, 19))
