"""Whose turn it is: tenants by weight, earliest deadline first within a tenant."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import Position
from streams.engine.fairness import FairQueue
from streams.engine.item import Item

WEIGHTS = {"heavy": 3.0, "light": 0.5}


def item(tenant: str = "a", deadline: float = 0.0, number: int = 0) -> Item:
    return Item(Position("t", 0, number, 0), None, "standard", 1, number, tenant=tenant, deadline=deadline)


def drained(queue: FairQueue) -> list[Item]:
    return [queue.pop() for _ in range(len(queue))]


def test_one_tenants_items_come_earliest_deadline_first_and_equal_ones_in_order() -> None:
    queue = FairQueue()
    for number, deadline in enumerate((5.0, 1.0, 5.0, 3.0)):
        queue.push(item(deadline=deadline, number=number))

    assert [one.work for one in drained(queue)] == [1, 3, 0, 2]


def test_a_tenant_with_a_backlog_does_not_hold_up_one_that_comes_later() -> None:
    queue = FairQueue()
    for number in range(100):
        queue.push(item("flood", number=number))
    for _ in range(50):
        queue.pop()
    queue.push(item("newcomer"))

    assert "newcomer" in {queue.pop().tenant, queue.pop().tenant}


def test_tenants_share_by_their_weights() -> None:
    queue = FairQueue(WEIGHTS)
    for tenant in ("heavy", "plain", "light"):
        for number in range(200):
            queue.push(item(tenant, number=number))
    counts = Counter(queue.pop().tenant for _ in range(90))

    assert {name: round(count / 20, 1) for name, count in counts.items()} == {"heavy": 3.0, "plain": 1.0, "light": 0.5}


def test_a_tenant_that_was_away_gets_no_credit() -> None:
    queue = FairQueue()
    for number in range(100):
        queue.push(item("steady", number=number))
    for _ in range(40):
        queue.pop()
    for number in range(100):
        queue.push(item("back", number=number))
    counts = Counter(queue.pop().tenant for _ in range(20))

    assert counts == {"steady": 10, "back": 10}


def test_coming_back_does_not_wipe_out_what_a_tenant_has_had() -> None:
    queue = FairQueue({"cheat": 0.1})
    for number in range(100):
        queue.push(item("steady", number=number))
    served: Counter[str] = Counter()
    for _ in range(20):
        # One item at a time: without a memory it would begin anew each time, in front.
        if "cheat" not in queue._items:
            queue.push(item("cheat"))
        served[queue.pop().tenant] += 1

    assert served["cheat"] <= 3


@pytest.mark.parametrize("tenants", [3_000, 10**9], ids=["that come back", "that are always new"])
def test_however_many_tenants_there_are_none_waits_for_all_of_them_for_ever(
    tenants: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.engine.fairness._MAX_REMEMBERED", 100)
    queue = FairQueue()
    queue.push(item("busy", number=1))
    queue.push(item("busy", number=2))
    for number in range(50):
        queue.push(item(f"tenant{number}"))
    served = []
    for number in range(50, 1_000):
        # One comes for each that goes, as while there is a backlog.
        queue.push(item(f"tenant{number * 7919 % tenants}"))
        served.append(queue.pop())

    assert [place for place, one in enumerate(served) if one.tenant == "busy"][1] < 200


def test_tenants_that_are_gone_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.engine.fairness._MAX_REMEMBERED", 10)
    queue = FairQueue()
    for number in range(200):
        queue.push(item(f"tenant{number}"))
        queue.pop()

    assert len(queue._finishes) <= 10


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.tuples(st.sampled_from(("heavy", "plain", "light")), st.floats(0, 100, allow_nan=False)),
        ),
        max_size=200,
    )
)
def test_whatever_comes_and_goes_each_item_leaves_once_and_in_its_tenants_order(
    steps: list[tuple[str, float] | None],
) -> None:
    queue = FairQueue(WEIGHTS)
    inside: dict[str, list[tuple[float, int]]] = {}
    for number, step in enumerate(steps):
        if step is not None:
            queue.push(item(*step, number))
            inside.setdefault(step[0], []).append((step[1], number))
        elif len(queue):
            out = queue.pop()
            first = min(inside[out.tenant])
            inside[out.tenant].remove(first)

            assert (out.deadline, out.work) == first
        assert len(queue) == sum(map(len, inside.values()))

    assert sorted(one.work for one in queue.clear()) == sorted(n for left in inside.values() for _, n in left)
    assert len(queue) == 0


@given(st.lists(st.sampled_from(("a", "b", "c")), min_size=30, max_size=200))
def test_tenants_with_a_backlog_are_never_more_than_a_turn_apart(arrivals: list[str]) -> None:
    queue = FairQueue()
    for number, tenant in enumerate(arrivals):
        queue.push(item(tenant, number=number))
    left = Counter(arrivals)
    served: Counter[str] = Counter()
    while queue:
        served[queue.pop().tenant] += 1
        waiting = [name for name in left if served[name] < left[name]]

        assert all(abs(served[one] - served[other]) <= 1 for one, other in pairwise(waiting))
