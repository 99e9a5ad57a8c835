"""The window of repetitions: what is one, and that nothing else ever is."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.metrics import REGISTRY
from contracts.repetition import By, Identity, identify
from streams.engine.dispatcher import Slot
from streams.engine.engine import Engine
from streams.engine.item import Item, ResultRef
from streams.engine.ledger import Ledger
from streams.engine.repeats import First, Repeats
from streams.engine.tenure import Tenure
from streams.engine.work import Limits
from tests.streams.engine.support import RESULTS, TP0, answers, make_item
from tests.streams.virtual_clock import settled

WINDOW_S = 60


def identity(event_id: str = "e", body: bytes = b"1", by: By = "id") -> Identity:
    return identify("", "s", event_id, body, by, WINDOW_S)


def test_a_later_equal_event_repeats_the_first_one() -> None:
    window = Repeats(10)

    assert window.meet(identity(), 5, 1000) is None
    assert window.meet(identity(), 9, 2000) == First(5, 1000, "")
    assert window.meet(identity(), 12, 3000) == First(5, 1000, "")


def test_the_same_record_delivered_again_repeats_nothing() -> None:
    window = Repeats(10)
    window.meet(identity(), 5, 1000)

    assert window.meet(identity(), 5, 1000) is None
    assert window.meet(identity(), 6, 1000) == First(5, 1000, "")


def test_an_event_repeats_none_that_lies_behind_it() -> None:
    window = Repeats(10)
    window.meet(identity(), 9, 1000)

    assert window.meet(identity(), 5, 1000) is None


@pytest.mark.parametrize(("after_s", "repeats"), [(WINDOW_S, True), (WINDOW_S + 1, False), (-10, True)])
def test_the_window_is_counted_on_the_records_own_times(after_s: int, repeats: bool) -> None:
    window = Repeats(10)
    window.meet(identity(), 1, 100_000)

    assert (window.meet(identity(), 2, 100_000 + after_s * 1000) is not None) == repeats
    if not repeats:
        assert window.meet(identity(), 3, 100_000 + after_s * 1000) == First(2, 161_000, "")


def test_by_digest_the_first_ones_id_is_remembered() -> None:
    window = Repeats(10)
    window.meet(identity("real", by="digest")._replace(event_id="real"), 1, 0)

    assert window.meet(identity("made-up", by="digest"), 2, 0) == First(1, 0, "real")


def test_the_same_id_with_another_body_is_done_and_counted() -> None:
    before = REGISTRY.get_sample_value("penstock_events_id_conflicts_total") or 0.0
    window = Repeats(10)

    found = [window.meet(identity(body=body), offset, 0) for offset, body in enumerate((b"1", b"2", b"1", b"2"))]

    assert found == [None, None, First(0, 0, ""), First(1, 0, "")]
    assert REGISTRY.get_sample_value("penstock_events_id_conflicts_total") == before + 1


@given(st.integers(0, 9), st.lists(st.integers(0, 30), max_size=80))
def test_the_newest_events_are_remembered_within_the_limit(limit: int, ids: list[int]) -> None:
    window, firsts = Repeats(limit), list[int]()
    for offset, number in enumerate(ids):
        first = window.meet(identity(str(number)), offset, 0)
        assert len(window) <= limit + 1
        if first is None:
            firsts.append(number)
            continue
        # It is one indeed: an equal event lies at that lower offset.
        assert first.offset < offset
        assert ids[first.offset] == number
    recent = firsts[len(firsts) - limit // 2 :] if limit // 2 else []
    offset = len(ids)
    assert all(window.meet(identity(str(number)), offset, 0) is not None for number in set(recent))


def test_without_a_limit_nothing_is_remembered() -> None:
    window = Repeats(0)

    assert [window.meet(identity(), offset, 0) for offset in range(3)] == [None, None, None]


def test_a_log_that_starts_again_is_another_log() -> None:
    ledger = Ledger(0, repeats=Repeats(10))
    for offset in (0, 1):
        ledger.take(offset, 1000)
    ledger.repeats.meet(identity(), 0, 1000)

    ledger.take(0, 5000)
    ledger.take(1, 6000)

    assert ledger.repeats.meet(identity(), 1, 6000) is None


def test_an_empty_window_is_kept_and_filled() -> None:
    window = Repeats(10)

    assert Ledger(0, repeats=window).repeats is window


class Bench:
    """An engine whose work takes a second, or none for a repetition."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, bool, float]] = []
        self.began_s = asyncio.get_running_loop().time()
        limits = Limits(in_flight=4, ready_keys=100, held_events=100, held_bytes=10**6, uncommitted=100)
        self.engine = Engine(self._work, limits, ("standard",), self._crash)
        self.tenure = Tenure(1)

    async def _work(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:  # noqa: ARG002 - the protocol's names
        if item.first is None:
            await asyncio.sleep(1)
        self.ended.append(
            (item.position.offset, item.first is not None, asyncio.get_running_loop().time() - self.began_s)
        )
        return ResultRef(RESULTS, len(self.ended) - 1)

    @staticmethod
    def _crash(error: BaseException) -> None:
        raise error

    def begin(self, ledger: Ledger) -> None:
        self.engine.prepare(self.tenure)
        self.engine.begin(self.tenure, {TP0: ledger})

    async def send(self, *offsets: int, which: Identity | None = None) -> None:
        for offset in offsets:
            item = make_item(offset, "key")
            item.identity = which or identity()
            assert await self.engine.submit(item, 1)


async def test_a_repetition_waits_for_nobody_though_the_first_is_at_work() -> None:
    bench = Bench()
    bench.begin(Ledger(0, {RESULTS: 0}, repeats=Repeats(10)))

    await bench.send(0, 1, 2)
    await settled()
    assert bench.ended == [(1, True, 0.0), (2, True, 0.0)]
    # The commit point stays at the first one, so that a crash now loses neither.
    assert bench.engine.commits()[TP0][0] == 0

    await asyncio.sleep(2)
    assert bench.ended[2:] == [(0, False, 1.0)]
    assert bench.engine.commits()[TP0][0] == 3


async def test_a_repetition_of_what_was_answered_before_a_restart_is_one() -> None:
    bench = Bench()
    answered = answers({(5, 1005): ResultRef(RESULTS, 3)})
    bench.begin(Ledger(5, {RESULTS: 4}, answered, repeats=Repeats(10)))

    await bench.send(5, 6)
    await settled()

    assert bench.ended == [(6, True, 0.0)]


async def test_an_event_without_an_identity_is_never_a_repetition() -> None:
    bench = Bench()
    bench.begin(Ledger(0, {RESULTS: 0}, repeats=Repeats(10)))
    for offset in (0, 1):
        assert await bench.engine.submit(make_item(offset), 1)
    await asyncio.sleep(2)

    assert [is_repetition for _, is_repetition, _ in bench.ended] == [False, False]
