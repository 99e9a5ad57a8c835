"""Whatever ends in whatever order, with gaps in the log: the commit point and the mark lose nothing."""

import itertools
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.engine.item import ResultRef
from streams.engine.ledger import Answers, Ledger
from streams.tail import Tail
from tests.streams.engine.support import RESULTS, answers


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
    known = answers({place: ResultRef(RESULTS, at) for place, at in found.items()})
    ledger = Ledger(0, {RESULTS: 100}, known)
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

            assert ledger.mark() == {RESULTS: min(found.values()) if kept else 100}
        assert ledger.is_idle == (not kept)
        told = {place: ledger.already_answered(*place) for place in found}
        assert told == {place: ResultRef(RESULTS, kept[place]) if place in kept else None for place in found}


def test_a_mark_does_not_look_at_each_answer_that_waits_for_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be a million of them behind a straggler, and one is asked for every second."""
    looked: list[int] = []
    for name in ("_of_page", "_drop"):
        method = getattr(Answers, name)

        def noted(self: Answers, number: int, method: Any = method) -> Any:
            looked.append(number)
            return method(self, number)

        monkeypatch.setattr(Answers, name, noted)
    known = answers({(offset, 1000): ResultRef(RESULTS, offset) for offset in range(20_000)})
    ledger = Ledger(0, {RESULTS: 20_000}, known)
    for offset in range(3000):
        ledger.take(offset, 1000)
        ledger.finish(offset, ledger.already_answered(offset, 1000))
        ledger.mark()

    assert looked == [0, 0, 1, 1, 2]


def test_an_answer_that_waits_for_its_event_takes_some_22_bytes() -> None:
    """They were 340 once: 5 million answers, 1.7 GB, and a worker that the system ends while commits are mended."""
    tracemalloc.start()
    try:
        kept = Answers()
        for offset in range(100_000):
            kept.add(offset, 1_795_910_400_000 + offset, ResultRef(RESULTS, offset))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size <= 24 * 100_000


# Where pages of 1,024 offsets begin and end, and a far one.
OFFSETS = st.one_of(st.integers(0, 6), st.integers(1020, 1028), st.integers(2046, 2050), st.sampled_from((5000, 2**62)))
FOUND = st.lists(
    st.tuples(st.tuples(OFFSETS, st.integers(-1, 2)), st.builds(ResultRef, st.sampled_from("ab"), st.integers(0, 99))),
    max_size=40,
)
LOOKS = st.lists(st.one_of(OFFSETS, st.tuples(st.just("keep"), OFFSETS)), max_size=8)


@given(FOUND, LOOKS, st.one_of(st.just(2**63), st.integers(1, 12)))
def test_packed_answers_are_those_of_a_plain_table_up_to_where_some_were_left_out(
    found: list[tuple[tuple[int, int], ResultRef]], looks: list[Any], limit: int
) -> None:
    kept = Answers(limit)
    for place, ref in found:
        kept.add(*place, ref)
    plain, passed = dict(found), 0
    for look in looks:
        if isinstance(look, tuple):
            kept.keep(look[1])
            plain = {place: ref for place, ref in plain.items() if place[0] < look[1] and place[1] >= 0}
        else:
            kept.pass_to(look)
            passed = max(passed, look)
            plain = {place: ref for place, ref in plain.items() if place[0] >= passed}
        for place in dict(found):
            known = plain.get(place) if place[0] < kept.known_to else None
            assert kept.get(*place) == known
        coming = [ref for place, ref in plain.items() if place[0] >= passed]
        assert kept.are_waiting or not coming
        assert all(kept.starts()[ref.topic] <= ref.offset for ref in coming)
        assert kept.are_cut or kept.are_waiting == bool(coming)
    pages = {offset // 1024 for (offset, _), _ in kept}
    assert len(kept) <= limit or len(pages) <= 1


@given(
    st.lists(st.tuples(st.integers(1, 700), st.sampled_from(("answered", "open", "gone"))), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 8),
    st.floats(0, 0.3),
)
def test_through_windows_and_restarts_no_answer_is_missed(
    log: list[tuple[int, str]], dice: random.Random, limit: int, crashes: float
) -> None:
    """Answers in any order, to events that are there or gone with the retention; each look goes on from the mark."""
    events, results, offset = list[int](), list[int](), 0
    for gap, kind in log:
        offset += gap
        events += [offset] * (kind != "gone")
        results += [offset] * (kind != "open")
    was_answered = frozenset(results)
    dice.shuffle(results)
    position, start, called, is_over = 0, 0, list[int](), False
    for number in range(100):
        end = len(results)
        found = {(event, event): ResultRef(RESULTS, at) for at, event in enumerate(results) if at >= start}
        known = answers({place: ref for place, ref in found.items() if place[0] >= position}, limit)
        ledger = Ledger(position, {RESULTS: end}, known)
        is_over = True
        for event in [event for event in events if event >= position]:
            if ledger.limit_reached(event, 100_000) == "answers":
                is_over = False
                assert ledger.wants_answers
                break
            answer = ledger.already_answered(event, event)
            ledger.take(event, event)
            if answer is None:
                called.append(event)
                results.append(event)
                answer = ResultRef(RESULTS, len(results) - 1)
            ledger.finish(event, answer)
            if dice.random() < crashes:
                position, start = ledger.commit_point, ledger.mark()[RESULTS]
            if number < 40 and dice.random() < crashes / 4:
                is_over = False
                break
        else:
            position, start = ledger.commit_point, ledger.mark()[RESULTS]
        if ledger.wants_answers:
            position, start = ledger.commit_point, ledger.mark()[RESULTS]
        if is_over:
            break

    assert is_over
    assert sorted(called) == [event for event in events if event not in was_answered]


@given(
    st.lists(st.tuples(st.integers(1, 700), st.booleans()), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 9000), st.booleans()), max_size=30),
    st.randoms(use_true_random=False),
    st.integers(1, 8),
    st.floats(0, 0.3),
)
def test_answers_of_a_former_log_neither_answer_an_event_nor_hold_the_mark_in_any_window(
    log: list[tuple[int, bool]], former: list[tuple[int, bool]], dice: random.Random, limit: int, crashes: float
) -> None:
    """The topic was made anew, the former one may have been longer; the new one grows, and its worker is killed.

    Some events and some answers have no timestamp. As Membership does, with what it keeps in the mark.
    """
    gaps, stamp = [gap for gap, _ in log], {True: 500, False: -1}
    events = [(offset, offset + 1000 if log[at][1] else -1) for at, offset in enumerate(itertools.accumulate(gaps))]
    results = [(offset, stamp[is_timed]) for offset, is_timed in former]
    position, start, log_end, may_be_former = 0, 0, 0, True
    called, ledger, is_over = list[tuple[int, int]](), Ledger(0), False
    while not is_over:
        end, log_end = len(results), max(log_end, dice.choice(events)[0] + 1)
        found = {place: ResultRef(RESULTS, at) for at, place in enumerate(results) if at >= start}
        tail = Tail(answers({at: ref for at, ref in found.items() if at[0] >= position}, limit), log=(0, log_end))
        if may_be_former:
            tail.forget_former(is_cut=False)
        ledger = Ledger(position, {RESULTS: end}, tail.answered)
        is_over = True
        for place in [place for place in events if place[0] >= position]:
            is_over = ledger.limit_reached(place[0], 100_000) is None
            if not is_over:
                assert tail.answered.known_to < log_end, "it waits for answers to events that never were"
                break
            answer = ledger.already_answered(*place)
            ledger.take(*place)
            log_end = max(log_end, place[0] + 1)
            if answer is None:
                called.append(place)
                results.append(place)
                answer = ResultRef(RESULTS, len(results) - 1)
            ledger.finish(place[0], answer)
            if dice.random() < crashes:
                position, start = ledger.commit_point, ledger.mark()[RESULTS]
                may_be_former = may_be_former and start < end
            is_over = len(called) > 100 or dice.random() >= crashes / 4
            if not is_over:
                break
        if is_over or ledger.wants_answers:
            position, start = ledger.commit_point, ledger.mark()[RESULTS]
            may_be_former = may_be_former and start < end

    assert (ledger.is_idle, start, may_be_former) == (True, len(results), False)
    assert set(called) == set(events)
    timed = [place for place in called if place[1] >= 0]
    assert len(timed) == len(set(timed))
