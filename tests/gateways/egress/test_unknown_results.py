"""Ids that a view of the results does not find: called unknown only when it has read the logs that the topics are."""

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.codec import Position
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.settings import KafkaSettings, ResultsViewSettings
from gateways.egress import results
from gateways.egress.index import IndexUnreadable, ResultIndex
from gateways.egress.indexing import Indexing
from gateways.egress.outcomes import Accepted, Noted, Outcome
from gateways.egress.reading import LogIds, Present
from gateways.egress.results import ResultsView
from gateways.egress.tail import Tail
from tests.support import FakeClock, eventually, eventually_async, no_threads

FORMER, NOW = {"events": "former"}, {"events": "now", "results": "r"}
NOBODY: dict[str, Any] = {"bootstrap.servers": "127.0.0.1:1"}


class Brokers:
    """Brokers that say which log each topic is, and where it ends."""

    def __init__(self) -> None:
        self.ids: dict[str, str] | None = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.asked: list[bool] = []
        self.on_asked: Callable[[], object] = lambda: None

    def present(self, _topics: tuple[str, ...], *, has_ids: bool) -> Present:
        """Answer; None = no answer."""
        self.asked.append(has_ids)
        self.on_asked()
        if self.ids is None:
            message = "no answer in time"
            raise LogUnavailable(message)
        return Present(self.ids, self.ends)


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


@pytest.fixture
def view(tmp_path: Path, brokers: Brokers, monkeypatch: pytest.MonkeyPatch) -> Iterator[ResultsView]:
    """Give a view with an index that has read everything, of topics whose logs are not known."""
    made = ResultsView(
        KafkaSettings(bootstrap_servers=("127.0.0.1:1",)),
        ("results",),
        ("events",),
        cache_bytes=2**20,
        retention_s=3600.0,
        view=ResultsViewSettings(path=tmp_path / "index.sqlite", max_bytes=16 * 2**20),
    )
    for name in ("is_reachable", "is_caught_up"):
        monkeypatch.setattr(Tail, name, property(lambda _tail: True))
    indexing_of(made).is_caught_up = True
    made._log_ids = cast("LogIds", brokers)
    yield made
    made.close()


def indexing_of(view: ResultsView) -> Indexing:
    assert view._archive is not None
    return view._archive._indexing


async def ask(view: ResultsView, *, within_memory: bool = False) -> type[Exception]:
    """Return how an unknown id is answered."""
    with pytest.raises((UnknownResult, Busy, LogUnavailable)) as caught:
        await view.accepted("crm", "e1", None, within_memory=within_memory)
    return caught.type


@pytest.mark.parametrize(("tail", "index"), [(FORMER, FORMER), (FORMER, NOW), (NOW, FORMER), (NOW, {}), ({}, NOW)])
async def test_an_id_is_unknown_when_nobody_reads_a_former_log(
    view: ResultsView, brokers: Brokers, tail: dict[str, str], index: dict[str, str]
) -> None:
    view._tail.log_ids, indexing_of(view).log_ids, brokers.ids = tail, index, NOW

    assert await ask(view) is (Busy if FORMER in (tail, index) else UnknownResult)
    assert await ask(view, within_memory=True) is UnknownResult
    assert brokers.asked == [True]


async def test_brokers_that_know_no_ids_are_believed(view: ResultsView, brokers: Brokers) -> None:
    assert (await ask(view), brokers.asked) == (UnknownResult, [True])


async def test_the_embedded_broker_is_not_asked_for_ids_though_the_index_knows_another_cluster(
    brokers: Brokers,
) -> None:
    """It would answer nothing: every unknown id took 5 s and was a 503."""
    view = ResultsView(
        KafkaSettings(bootstrap_servers=("127.0.0.1:1",), embedded=True),
        ("results",),
        ("events",),
        cache_bytes=2**20,
        retention_s=3600.0,
    )

    view._log_ids, view._tail.log_ids = cast("LogIds", brokers), FORMER

    await view._present()

    assert brokers.asked == [False]
    view.close()


async def test_an_id_is_not_unknown_before_the_index_has_read_to_the_end(
    view: ResultsView, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a break nobody has noticed, the readers still hold what was said of them before it."""
    monkeypatch.setattr(results, "_READ_WITHIN_S", 0.05)
    brokers.ends = {("events", 0): 7, ("events", 1): 0}
    view._tail.read_to = {("events", 0): 7, ("events", 1): 0}
    indexing_of(view).read_to = {("events", 0): 6, ("events", 1): 0}
    assert await ask(view) is Busy
    # A partition that it does not follow yet.
    indexing_of(view).read_to = {("events", 0): 7}
    assert await ask(view) is Busy

    indexing_of(view).read_to = {("events", 0): 7, ("events", 1): 0}
    assert await ask(view) is UnknownResult


async def test_what_is_read_within_a_moment_of_the_question_is_found(view: ResultsView, brokers: Brokers) -> None:
    indexing = indexing_of(view)
    brokers.ends = {("events", 0): 1}
    asked = asyncio.ensure_future(view.accepted("crm", "e1", None))
    await eventually_async(lambda: indexing._is_hurried)

    noted = Noted("crm", "e1", Accepted("shop", Position("events", 0, 0, 1)))
    await asyncio.to_thread(indexing._index.write, [], [noted], {("events", 0): 1}, 0)
    indexing.read_to = {("events", 0): 1}

    assert await asked == noted.accepted


async def test_without_an_index_the_tail_has_to_have_read_to_the_end(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_READ_WITHIN_S", 0.05)
    for name in ("is_reachable", "is_caught_up"):
        monkeypatch.setattr(Tail, name, property(lambda _tail: True))
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    view = ResultsView(kafka, ("results",), ("events",), cache_bytes=2**20, retention_s=3600.0)
    view._log_ids, brokers.ends = cast("LogIds", brokers), {("events", 0): 7}
    view._tail.read_to = {("events", 0): 6}

    assert await ask(view) is Busy
    view._tail.read_to = {("events", 0): 7}
    assert await ask(view) is UnknownResult
    view.close()


@pytest.mark.parametrize("when", ["looked", "asked"])
async def test_what_is_noticed_while_it_is_asked_for_was_not_looked_through(
    view: ResultsView, brokers: Brokers, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The readers begin the new log, and may have read it, after the look that found nothing."""
    view._tail.log_ids = indexing_of(view).log_ids = FORMER
    brokers.ids = NOW

    looks = 0

    def notice() -> None:
        # As the readers do it: first what was said is taken back.
        indexing_of(view).is_caught_up = False
        view._tail.log_ids = indexing_of(view).log_ids = NOW

    async def look(*_: object) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            notice()

    if when == "asked":
        brokers.on_asked = notice
    else:
        monkeypatch.setattr(view._archive, "accepted", look)

    assert await ask(view) is Busy
    indexing_of(view).is_caught_up = True
    brokers.on_asked = lambda: None
    assert await ask(view) is UnknownResult


async def test_one_question_is_for_all_who_came_before_it(view: ResultsView, brokers: Brokers) -> None:
    view._tail.log_ids, brokers.ids = NOW, NOW

    found = await asyncio.gather(*(ask(view) for _ in range(50)))

    assert set(found) == {UnknownResult}
    assert 1 <= len(brokers.asked) < 10
    # Whoever comes later asks anew.
    brokers.ids = None
    found = await asyncio.gather(*(ask(view) for _ in range(50)))
    assert set(found) == {LogUnavailable}
    brokers.ids = NOW
    assert await ask(view) is UnknownResult


async def test_a_flood_of_unknown_ids_is_a_bounded_number_of_questions(
    view: ResultsView, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_ASK_EVERY_S", 60.0)
    assert await ask(view) is UnknownResult

    flood = [asyncio.ensure_future(ask(view)) for _ in range(100)]
    done, _ = await asyncio.wait(flood, timeout=0.3)

    assert (len(done), len(brokers.asked)) == (0, 1)
    for one in flood:
        one.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_an_index_that_cannot_be_read_calls_no_id_unknown_and_holds_up_nobody_who_does_without(
    view: ResultsView, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        message = "of a disk"
        raise IndexUnreadable(message)

    async def look_up(*_: object) -> Outcome:
        return scanned

    scanned = Outcome("id", "e1", "crm", "crm", "t", b"{}", 1)

    index = indexing_of(view)._index
    monkeypatch.setattr(index, "accepted", fail)
    monkeypatch.setattr(index, "place_of", fail)
    monkeypatch.setattr(view, "_look_up", look_up)

    assert await ask(view) is IndexUnreadable
    assert await ask(view, within_memory=True) is UnknownResult
    monkeypatch.setattr(Tail, "covers", lambda *_: False)
    assert await view.outcome_of("crm", "e1", Position("events", 0, 0, 2**42)) == scanned
    assert brokers.asked == []


def test_a_damaged_index_is_made_anew_while_it_is_used_also_while_kafka_is_away(tmp_path: Path) -> None:
    with contextlib.closing(ResultIndex(tmp_path / "index.sqlite", 16 * 2**20)) as index:
        index.note_logs(NOW, [])
        index.write([], [], {("events", 0): 7}, 0)
        indexing = Indexing(NOBODY, ("results",), ("events",), index, 3600.0)
        indexing.start()
        try:
            (tmp_path / "index.sqlite").unlink()
            with pytest.raises(IndexUnreadable):
                index.accepted("crm", "e1", None)
            assert index.is_damaged
            eventually(lambda: not index.is_damaged)

            assert index.accepted("crm", "e1", None) is None
            assert (index.next_offsets(), index.log_ids(), indexing.is_caught_up) == ({}, {}, False)
            # Noted in the new file when the brokers say them.
            assert indexing.log_ids == {}
        finally:
            indexing.close()


class _FullDisk(ResultIndex):
    """Cannot be made anew; attempts are counted."""

    attempts = 0

    def have_tried(self, times: int) -> bool:
        return self.attempts >= times

    def make_anew(self) -> None:
        self.attempts += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_of_a_disk_that_stays_full_is_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateways.egress.indexing._RETRY_S", 0.01)
    clock = FakeClock()
    with contextlib.closing(_FullDisk(tmp_path / "index.sqlite", 16 * 2**20)) as index, capture_logs() as lines:
        index.is_damaged = True
        indexing = Indexing(NOBODY, ("results",), ("events",), index, 3600.0, monotonic=clock)
        indexing.start()
        try:
            for number in range(3):
                eventually(partial(index.have_tried, index.attempts + 3))
                clock.advance(20 if number < 2 else 0)
        finally:
            indexing.close()

    told = [line["error"] for line in lines if line["event"] == "results.index_waits"]
    assert told == ["[Errno 28] No space left on device"] * 2


def test_an_index_that_hears_of_another_log_has_not_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(ResultIndex(tmp_path / "index.sqlite", 16 * 2**20)) as index:
        index.note_logs(FORMER, [])
        indexing = Indexing(NOBODY, ("results",), ("events",), index, 3600.0)
        indexing.is_caught_up = True
        monkeypatch.setattr(indexing._log_ids, "made_anew", lambda: setattr(indexing._log_ids, "ids", NOW))

        assert indexing.log_ids == FORMER
        assert indexing._is_log_other()

        assert (indexing.log_ids, indexing.is_caught_up) == (NOW, False)


@pytest.mark.parametrize("has_index", [True, False])
async def test_who_asks_while_no_thread_can_be_started_is_to_come_again(
    tmp_path: Path, brokers: Brokers, monkeypatch: pytest.MonkeyPatch, *, has_index: bool
) -> None:
    for name in ("is_reachable", "is_caught_up"):
        monkeypatch.setattr(Tail, name, property(lambda _tail: True))
    monkeypatch.setattr(Tail, "covers", lambda *_: False)
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    index = ResultsViewSettings(path=tmp_path / "index.sqlite", max_bytes=16 * 2**20) if has_index else None
    view = ResultsView(kafka, ("results",), ("events",), cache_bytes=2**20, retention_s=3600.0, view=index)
    view._log_ids = cast("LogIds", brokers)
    if has_index:
        indexing_of(view).is_caught_up = True
    with no_threads():
        assert await ask(view) is LogUnavailable
        with pytest.raises(LogUnavailable, match="can't start new thread"):
            await view.outcome_of("shop", "e1", Position("events", 0, 7, time.time_ns() // 1_000_000))

    assert await ask(view) is UnknownResult
    view.close()
