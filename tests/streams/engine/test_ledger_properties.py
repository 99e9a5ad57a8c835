"""Whatever ends in whatever order, with gaps in the log: the commit point and the mark lose nothing."""

import random

from hypothesis import given
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
