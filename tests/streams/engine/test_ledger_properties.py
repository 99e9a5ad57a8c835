"""Whatever ends in whatever order, with gaps in the log: the commit point and the mark lose nothing."""

import random
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine.item import ResultRef
from streams.engine.ledger import Ledger
from tests.streams.engine.support import RESULTS


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
    st.integers(0, 1000),
    st.lists(st.sampled_from(("take", "finish", "finish", "look")), max_size=200),
)
def test_the_commit_point_is_the_lowest_unfinished_offset_and_the_mark_covers_what_lies_behind_it(
    gaps: list[int], dice: random.Random, begin: int, steps: list[str]
) -> None:
    ledger = Ledger(begin, {RESULTS: 100})
    coming = []
    offset = begin - 1
    for gap in gaps:
        offset += gap
        coming.append(offset)
    open_offsets: list[int] = []
    results: dict[int, int] = {}
    end, newest, before = 100, begin - 1, begin
    for step in steps:
        if step == "take" and coming:
            newest = coming.pop(0)
            ledger.take(newest, newest)
            open_offsets.append(newest)
        elif step == "finish" and open_offsets:
            done = open_offsets.pop(dice.randrange(len(open_offsets)))
            # Other records lie between ours: other applications', and those of other partitions' lanes.
            end += dice.randrange(3)
            ledger.finish(done, ResultRef(RESULTS, end))
            results[done] = end
            end += 1
        point = ledger.commit_point
        mark = ledger.mark()[RESULTS]

        assert point == (min(open_offsets) if open_offsets else newest + 1)
        assert point >= before
        # A restart skips what lies behind the point and is answered: its answers must not lie before the mark.
        assert all(mark <= place for done, place in results.items() if done >= point)
        assert mark <= end
        before = point


@given(st.permutations(range(12)), st.integers(0, 11))
def test_a_straggler_holds_the_point_and_everything_else_may_finish(order: list[int], straggler: int) -> None:
    ledger = Ledger(0, {RESULTS: 0})
    for offset in range(12):
        ledger.take(offset, offset)
    for place, offset in enumerate(one for one in order if one != straggler):
        ledger.finish(offset, ResultRef(RESULTS, place))

    assert (ledger.commit_point, ledger.unfinished) == (straggler, 1)

    ledger.finish(straggler, ResultRef(RESULTS, 11))

    assert (ledger.commit_point, ledger.mark()) == (12, {RESULTS: 12})


PLACES = st.tuples(st.integers(0, 20), st.integers(0, 2))
ANSWERS = st.dictionaries(PLACES, st.integers(0, 99), max_size=40)
# A record comes, the log is passed over so far, or the mark is asked for.
STEPS = st.lists(st.one_of(PLACES, st.integers(1, 5), st.none()), max_size=60)


@given(ANSWERS, STEPS)
@example({(3, 0): 1, (3, 1): 2, (9, 0): 3}, [(3, 1), None, (9, 2), None, (0, 0), None])
def test_each_mark_forgets_the_answers_that_the_log_has_passed_and_no_other(
    found: dict[tuple[int, int], int], steps: list[Any]
) -> None:
    """Also where offsets begin again: the marks are those of a book that looks at every answer each time."""
    ledger = Ledger(0, {RESULTS: 100}, {place: ResultRef(RESULTS, at) for place, at in found.items()}, {RESULTS: 7})
    kept, position, newest = dict(found), 0, None
    for step in steps:
        if isinstance(step, tuple):
            log = ledger.take(*step)
            if log is not None:
                ledger.finish(step[0], None, log)
                position = step[0] + 1
                newest = step[0]
        elif step is not None:
            position += step
            ledger.pass_gap(newest, position)
        else:
            kept = {place: at for place, at in kept.items() if place[0] >= position}

            assert ledger.mark() == {RESULTS: 7 if kept else 100}
        assert ledger.is_idle == (not kept)
        answers = {place: ledger.already_answered(*place) for place in found}
        assert answers == {place: ResultRef(RESULTS, kept[place]) if place in kept else None for place in found}


class Looked(int):
    """An offset that counts how often it is compared."""

    times = 0

    def __lt__(self, other: int) -> bool:
        Looked.times += 1
        return int(self) < int(other)

    def __ge__(self, other: int) -> bool:
        Looked.times += 1
        return int(self) >= int(other)


def test_a_mark_does_not_look_at_each_answer_that_waits_for_its_event() -> None:
    """There may be a million of them behind a straggler, and one is asked for every second."""
    offsets: list[int] = [Looked(offset) for offset in range(1000)]
    answered = {(offset, 1000): ResultRef(RESULTS, offset) for offset in offsets}
    ledger = Ledger(0, {RESULTS: 1000}, answered, {RESULTS: 0})
    Looked.times = 0
    for offset in range(100):
        ledger.take(offset, 1000)
        ledger.finish(offset, ResultRef(RESULTS, offset))
        ledger.mark()

    assert Looked.times <= 300
