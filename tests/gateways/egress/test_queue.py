"""The queue of a door: order, batches, fairness, breakers, on a settable clock."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.settings.egress import DoorSection
from gateways.egress import queue
from gateways.egress.base import Item, Shape
from gateways.egress.ledger import Entry, Ledger
from gateways.egress.queue import Lane, Queue
from gateways.egress.schedule import LATE_S
from tests.suites.egress import result_item
from tests.support import FakeClock

LEDGER = Ledger("results", 0)


class Lab:
    """A queue, and short names for what is in it."""

    def __init__(
        self, shape: Shape, splits: Callable[[Item, Item], bool] = lambda _a, _b: False, **settings: Any
    ) -> None:
        self.clock = FakeClock()
        self.shape = shape
        self.queue = Queue(shape, splits, DoorSection.model_validate(settings), self.clock)

    def add(
        self, number: int, unit: object = None, destination: str = "", ledger: Ledger = LEDGER, owner: str = ""
    ) -> Entry:
        item = result_item(number)
        entry = Entry(item._replace(outcome=item.outcome._replace(owner=owner)), ledger, number, 0.0)
        entry.unit_id = (number,) if unit is None else (unit,)
        entry.destination = destination
        self.queue.add(entry)
        return entry

    def fail(self, destination: str = "") -> None:
        """Let a delivery fail that opens the destination's breaker."""
        self.add(1000, destination=destination)
        found = self.next(is_full=True)
        assert found is not None
        found[0].breaker.failed(opens=True)
        self.queue.done(*found, {})

    def next(self, *, is_full: bool = False) -> tuple[Lane, list[Entry]] | None:
        return self.queue.next_batch(is_full=is_full)

    def numbers(self, *, is_full: bool = False) -> list[int] | None:
        found = self.next(is_full=is_full)
        return None if found is None else [entry.offset for entry in found[1]]


def test_a_batch_waits_for_company_until_it_is_full_or_has_waited_long_enough() -> None:
    lab = Lab(Shape(max_batch=3, linger_s=1.0))
    lab.add(0)
    assert lab.numbers() is None
    assert lab.queue.wake_at_s() == pytest.approx(lab.clock() + 1.0)
    lab.clock.advance(1.0)
    assert lab.numbers() == [0]

    for number in range(1, 5):
        lab.add(number)

    assert lab.numbers() == [1, 2, 3]
    assert lab.numbers() is None


def test_a_destination_that_is_one_too_many_keeps_what_is_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_MAX_LANES", 2)
    lab = Lab(Shape(many_destinations=True), max_in_flight_per_destination=2)
    for destination in ("a", "b"):
        lab.fail(destination)

    kept = [lab.add(number, destination="c") for number in (1, 2)]

    assert [lab.numbers(), lab.numbers()] == [[1], [2]]
    lab.add(3, destination="d")
    assert [entry.offset for entry in lab.queue.drop(lambda entry: entry not in kept)] == [3]


def test_nobody_waits_for_company_when_nothing_more_comes_in() -> None:
    lab = Lab(Shape(max_batch=3, linger_s=60.0))
    lab.add(0)

    assert lab.numbers(is_full=True) == [0]


def test_a_batch_ends_at_its_bytes_and_one_that_is_larger_goes_alone() -> None:
    size = result_item(0).size_bytes
    lab = Lab(Shape(max_batch=10, max_batch_bytes=2 * size + 20))
    for number in range(3):
        lab.add(number)

    assert lab.numbers() == [0, 1]
    small = Lab(Shape(max_batch=10, max_batch_bytes=10))
    small.add(0)
    small.add(1)
    assert small.numbers() == [0]


def test_one_key_is_never_twice_under_way_and_never_twice_in_a_batch() -> None:
    lab = Lab(Shape(max_batch=10, order="key"), max_in_flight=4)
    for number, key in enumerate("aabac"):
        lab.add(number, key)

    first = lab.next()
    assert first is not None
    assert [entry.offset for entry in first[1]] == [0, 2, 4]
    assert lab.next() is None
    lab.queue.done(*first, {})
    assert lab.numbers() == [1]


def test_a_failed_item_rests_in_front_of_its_key_and_holds_back_no_other() -> None:
    lab = Lab(Shape(order="key"))
    for number, key in enumerate("aab"):
        lab.add(number, key)
    first = lab.next()
    assert first is not None

    lab.queue.done(*first, {first[1][0]: 5.0})

    assert lab.numbers() == [2]
    assert lab.numbers() is None
    lab.clock.advance(5.0)
    again = lab.next()
    assert again is not None
    assert again[1] == first[1]
    lab.queue.done(*again, {})
    assert lab.numbers() == [1]


def test_a_partition_goes_out_in_runs_one_at_a_time() -> None:
    lab = Lab(Shape(max_batch=3, linger_s=10.0, order="partition"), max_in_flight=4)
    for number in range(5):
        lab.add(number, "p0")
    lab.add(10, "p1")

    first = lab.next()
    assert first is not None
    assert [entry.offset for entry in first[1]] == [0, 1, 2]
    assert lab.next() is None
    lab.queue.done(*first, {first[1][2]: 0.0})
    lab.clock.advance(10.0)
    assert sorted([lab.numbers() or [], lab.numbers() or []]) == [[2, 3, 4], [10]]


def test_when_nothing_more_comes_in_the_longest_run_goes_first() -> None:
    lab = Lab(Shape(max_batch=10, linger_s=60.0, order="partition"), max_in_flight=1)
    for number, partition in enumerate(["p0", "p1", "p1", "p1", "p2"]):
        lab.add(number, partition)

    assert lab.numbers() is None
    assert lab.numbers(is_full=True) == [1, 2, 3]


def test_a_run_ends_where_the_door_splits_and_need_not_wait_then() -> None:
    lab = Lab(
        Shape(max_batch=10, linger_s=60.0, order="partition"),
        lambda a, b: b.position.offset // 3 > a.position.offset // 3,
    )
    for number in range(4):
        lab.add(number, "p0")

    first = lab.next()
    assert first is not None
    assert [entry.offset for entry in first[1]] == [0, 1, 2]
    lab.queue.done(*first, {})
    assert lab.numbers() is None, "the rest waits for company again"


def test_destinations_take_turns_and_none_takes_all() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=4, max_in_flight_per_destination=2)
    for number in range(8):
        lab.add(number, destination="busy" if number < 6 else "rare")

    order = [found[0].destination for _ in range(4) if (found := lab.next())]

    assert order == ["busy", "rare", "busy", "rare"]
    assert lab.next() is None


def test_who_has_many_destinations_that_hang_holds_up_nobody_else_for_longer_than_a_delivery() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=4)
    for number in range(10):
        lab.add(number, destination=f"hangs-{number}", owner="many")
    hanging = [found for _ in range(4) if (found := lab.next())]
    for number in range(10, 14):
        lab.add(number, destination="other", owner="one")
    assert (len(hanging), lab.next()) == (4, None)

    lab.queue.done(*hanging[0], {})
    delivered = []
    for _ in range(4):
        found = lab.next()
        assert found is not None
        delivered.append(found[1][0].offset)
        lab.queue.done(*found, {})

    # Their turns come one after the other; then the many get the place again.
    assert delivered == [10, 11, 12, 13]
    assert lab.numbers() == [4]


def test_owners_with_as_much_under_way_take_turns() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=1)
    for number in range(6):
        lab.add(number, destination=f"d{number}", owner=f"owner-{number % 3}")

    order = []
    while found := lab.next():
        order.append(found[1][0].offset)
        lab.queue.done(*found, {})

    assert order == [0, 1, 2, 3, 4, 5]


def test_an_open_breaker_lets_one_item_try_after_its_wait() -> None:
    lab = Lab(Shape(max_batch=10), breaker={"failures": 1, "base_s": 4.0}, max_in_flight=4)
    lab.fail()
    for number in range(3):
        lab.add(number)

    assert lab.next() is None
    assert lab.queue.open_breakers == 1
    assert lab.queue.wake_at_s() == pytest.approx(lab.clock() + 4.0)
    lab.clock.advance(4.0)
    probe = lab.next()
    assert probe is not None
    assert len(probe[1]) == 1
    assert lab.next() is None, "one at a time"
    assert lab.queue.wake_at_s() is None
    probe[0].breaker.succeeded()
    lab.queue.done(*probe, {})
    assert lab.numbers() == [1, 2]


def test_behind_an_open_breaker_a_run_of_a_partition_tries_as_a_whole() -> None:
    # Its object may be there already, and is named after the first record: a shorter run would leave the others out.
    lab = Lab(Shape(max_batch=10, linger_s=60.0, order="partition"), breaker={"failures": 1, "base_s": 4.0})
    entries = [lab.add(number, "p0") for number in range(3)]
    lab.clock.advance(60.0)
    failed = lab.next()
    assert failed is not None
    failed[0].breaker.failed()
    lab.queue.done(*failed, dict.fromkeys(entries, 0.0))
    lab.add(3, "p0")

    assert lab.next() is None
    lab.clock.advance(4.0)
    assert lab.numbers() == [0, 1, 2, 3]


def test_what_waits_for_a_destination_that_is_down_is_taken_out_but_for_one() -> None:
    lab = Lab(Shape(many_destinations=True), breaker={"failures": 1})
    lab.fail("down")
    for number in range(5):
        lab.add(number, destination="down")
    lab.add(9, destination="up")

    stranded = [entry.offset for _, entry in lab.queue.take_stranded(is_full=False)]

    assert sorted(stranded) == [1, 2, 3, 4]
    assert lab.queue.items == 2
    assert lab.numbers() == [9]


def test_of_a_hand_that_is_full_of_one_owners_late_items_the_latest_are_taken_beyond_half_of_it() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=2, max_held_items=20)
    for number in range(19):
        lab.add(number, destination=f"hangs-{number}", owner="many")
    hanging = [found for _ in range(2) if (found := lab.next())]
    assert len(hanging) == 2
    lab.clock.advance(LATE_S - 1)
    lab.add(90, destination="other", owner="one")
    assert lab.queue.take_crowding({}, is_full=True) == [], "it may do well"

    lab.clock.advance(1)
    taken = [entry.offset for _, entry in lab.queue.take_crowding({}, is_full=True)]

    # With the two under way nine are left, and the intake begins again below ten.
    assert taken == list(range(8, 19))
    assert lab.queue.items == 7
    for found in hanging:
        lab.queue.done(*found, {})
    assert [lab.numbers(), lab.numbers()] == [[2], [90]]
    assert lab.queue.take_crowding({}, is_full=False) == []


def test_of_a_full_hand_nothing_is_taken_that_came_a_moment_ago() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=1, max_held_items=20)
    lab.add(0, destination="d0", owner="one")
    lab.clock.advance(LATE_S)
    for number in range(1, 20):
        lab.add(number, destination=f"d{number}", owner="one")

    assert lab.queue.take_crowding({}, is_full=True) == []


def test_destinations_of_an_owner_keep_their_oldest_and_every_owner_something() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=1, max_held_items=4)
    for number in range(6):
        lab.add(number, destination="slow" if number < 4 else f"d{number}", owner="many")
    lab.add(7, destination="other", owner="one")
    lab.clock.advance(LATE_S)

    taken = {entry.offset for _, entry in lab.queue.take_crowding({}, is_full=True)}

    assert taken == {1, 2, 3, 4, 5}
    assert [lab.numbers(), lab.numbers()] == [[0], None]


def test_large_items_count_by_their_bytes() -> None:
    size = result_item(0).size_bytes
    lab = Lab(Shape(many_destinations=True), max_held_items=1000, max_held_bytes=max(2**16, 100 * size))
    count = lab.queue._settings.max_held_bytes // size
    for number in range(count):
        lab.add(number, destination=f"d{number}")
    lab.clock.advance(LATE_S)

    lab.queue.take_crowding({}, is_full=True)

    assert 0 < lab.queue.items * size < lab.queue._settings.max_held_bytes / 2


def test_what_lies_in_front_of_a_floor_is_taken_when_it_is_late() -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=1)
    other = Ledger("results", 1)
    for number in range(4):
        lab.add(number, destination="slow", ledger=LEDGER if number < 3 else other)
    under_way = lab.next()
    assert under_way is not None
    lab.clock.advance(LATE_S - 1)
    assert lab.queue.take_crowding({LEDGER: 2}, is_full=False) == []

    lab.clock.advance(1)

    assert [entry.offset for _, entry in lab.queue.take_crowding({LEDGER: 2}, is_full=False)] == [1]
    lab.queue.done(*under_way, {})
    assert [lab.numbers(), lab.queue.items] == [[2], 1]


@pytest.mark.parametrize("shape", [Shape(), Shape(order="key", many_destinations=True)])
def test_where_nothing_may_be_put_off_nothing_is_taken(shape: Shape) -> None:
    lab = Lab(shape, max_held_items=2)
    for number in range(4):
        lab.add(number)
    lab.clock.advance(LATE_S)

    assert lab.queue.take_crowding({LEDGER: 4}, is_full=True) == []


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40),
    st.integers(1, 30),
    st.integers(0, 4),
)
def test_when_all_is_late_the_hand_takes_more_again_and_every_owner_has_his_turn(
    owners: list[tuple[int, int]], max_held_items: int, slots: int
) -> None:
    lab = Lab(Shape(many_destinations=True), max_in_flight=slots + 1, max_held_items=max_held_items)
    for number, (owner, host) in enumerate(owners):
        lab.add(number, destination=f"{owner}-{host}", owner=str(owner))
    under_way = sum(lab.next() is not None for _ in range(slots))
    waiting = set(lab.queue._ready)
    lab.clock.advance(LATE_S)

    taken = lab.queue.take_crowding({}, is_full=True)

    assert len(taken) + lab.queue.items + under_way == len(owners)
    assert set(lab.queue._ready) == waiting
    assert lab.queue.items <= len(waiting) or lab.queue.items + under_way < max_held_items / 2


def test_partitions_that_are_given_up_leave_nothing_but_what_is_under_way() -> None:
    lab = Lab(Shape(order="key"), max_in_flight=1)
    gone = Ledger("results", 1)
    for number in range(3):
        lab.add(number, "a", ledger=gone)
    kept = lab.add(3, "b")
    first = lab.next()
    assert first is not None

    dropped = lab.queue.drop(lambda entry: entry.ledger is gone)

    assert [entry.offset for entry in dropped] == [1, 2]
    lab.queue.done(*first, {})
    found = lab.next()
    assert found is not None
    assert found[1] == [kept]
    lab.queue.done(*found, {})
    assert (lab.queue.items, lab.queue.in_flight, lab.queue.wake_at_s()) == (0, 0, None)


def test_a_resting_item_of_a_partition_that_is_given_up_does_not_come_back() -> None:
    lab = Lab(Shape(order="key"))
    lab.add(0, "a")
    first = lab.next()
    assert first is not None
    lab.queue.done(*first, {first[1][0]: 5.0})

    assert lab.queue.drop(lambda _entry: True) == first[1]
    lab.clock.advance(5.0)
    assert lab.next() is None
    assert lab.queue.items == 0


class Story:
    """A queue that things happen to, and what has come out of it per key."""

    def __init__(self) -> None:
        self.lab = Lab(Shape(max_batch=2, linger_s=0.5, order="key"), max_in_flight=3)
        self.under_way: list[tuple[Lane, list[Entry]]] = []
        self.finished: dict[object, list[int]] = {}
        self.added = 0

    def add(self, key: int) -> None:
        self.lab.add(self.added, key)
        self.added += 1

    def tick(self, _key: int) -> None:
        self.lab.clock.advance(0.6)

    def next(self, _key: int) -> None:
        if found := self.lab.next():
            self.under_way.append(found)

    def ok(self, index: int) -> None:
        self._finish(index, lambda _batch: {})

    def again(self, index: int) -> None:
        self._finish(index, lambda batch: {batch[0]: 1.0})

    def _finish(self, index: int, again: Callable[[list[Entry]], dict[Entry, float]]) -> None:
        if not self.under_way:
            return
        lane, batch = self.under_way.pop(index % len(self.under_way))
        returned = again(batch)
        self.lab.queue.done(lane, batch, returned)
        for entry in batch:
            if entry not in returned:
                self.finished.setdefault(entry.unit_id[0], []).append(entry.offset)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["add", "next", "ok", "again", "tick"])), max_size=60))
def test_whatever_happens_each_key_goes_out_in_order_and_nothing_is_lost(steps: list[tuple[int, str]]) -> None:
    story = Story()

    for key, step in steps:
        getattr(story, step)(key)
    for _ in range(300):
        story.lab.clock.advance(2.0)
        story.next(0)
        story.ok(0)

    assert sum(map(len, story.finished.values())) == story.added
    assert all(offsets == sorted(offsets) for offsets in story.finished.values())
    assert (story.lab.queue.items, story.lab.queue.in_flight) == (0, 0)
