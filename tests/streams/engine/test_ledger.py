"""The ledger: what may be committed, and with which mark."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from streams.engine.item import ResultRef
from streams.engine.ledger import Ledger
from tests.streams.engine.support import RESULTS, answers


def ref(offset: int) -> ResultRef:
    return ResultRef(RESULTS, offset)


def test_a_fresh_ledger_commits_where_it_began() -> None:
    assert Ledger(7).commit_point == 7


def test_the_commit_point_stays_at_the_oldest_unfinished_offset() -> None:
    ledger = Ledger(0)
    for offset in range(5):
        ledger.take(offset)
    for offset in (1, 2, 4):
        ledger.finish(offset, ref(offset))

    assert ledger.commit_point == 0


def test_an_unfinished_neighbour_of_a_finished_offset_is_not_passed() -> None:
    ledger = Ledger(0)
    ledger.take(0)
    ledger.take(1)
    ledger.finish(0, ref(0))

    assert ledger.commit_point == 1


def test_the_finished_prefix_is_committed_in_one_step() -> None:
    ledger = Ledger(0)
    for offset in range(4):
        ledger.take(offset)
    for offset in (3, 1, 2):
        ledger.finish(offset, ref(offset))
    ledger.finish(0, ref(9))

    assert ledger.commit_point == 4


def test_offsets_that_were_never_delivered_do_not_hold_the_commit_back() -> None:
    ledger = Ledger(0)
    for offset in (5, 9, 20):
        ledger.take(offset)
        ledger.finish(offset, ref(offset))

    assert ledger.commit_point == 21


def test_a_gap_in_front_of_an_unfinished_offset_may_be_committed() -> None:
    ledger = Ledger(0)
    ledger.take(5)

    assert ledger.commit_point == 5


def test_the_position_is_behind_the_newest_delivered_offset() -> None:
    ledger = Ledger(5)
    before = ledger.position
    ledger.take(9)

    assert (before, ledger.position) == (5, 10)


def test_the_span_counts_from_the_oldest_unfinished_offset() -> None:
    ledger = Ledger(0)
    for offset in range(10):
        ledger.take(offset)
    for offset in range(3):
        ledger.finish(offset, ref(offset))

    assert (ledger.span, ledger.unfinished) == (7, 7)


def test_the_mark_is_the_end_of_the_results_when_all_is_committed() -> None:
    ledger = Ledger(0, {RESULTS: 40})

    assert ledger.mark() == {RESULTS: 40}


def test_the_mark_moves_behind_a_result_once_its_event_can_be_committed() -> None:
    ledger = Ledger(0, {RESULTS: 40})
    ledger.take(0)
    ledger.finish(0, ref(41))

    assert (ledger.commit_point, ledger.mark()) == (1, {RESULTS: 42})


def test_the_mark_stays_at_the_lowest_result_that_is_ahead_of_the_commit_point() -> None:
    ledger = Ledger(0, {RESULTS: 40})
    for offset in range(3):
        ledger.take(offset)
    ledger.finish(2, ref(40))
    ledger.finish(1, ref(41))

    assert (ledger.commit_point, ledger.mark()) == (0, {RESULTS: 40})


def test_marks_are_kept_per_result_topic() -> None:
    ledger = Ledger(0, {RESULTS: 40, "own": 7})
    ledger.take(0)
    ledger.take(1)
    ledger.finish(1, ResultRef("own", 8))

    assert ledger.mark() == {RESULTS: 40, "own": 8}


def test_rule_1_a_skipped_event_keeps_its_result_offset_in_the_mark() -> None:
    """Without this 1,065 calls were made again for a floor of 600."""
    ledger = Ledger(0, {RESULTS: 50}, answers({(1, 100): ref(45)}))
    ledger.take(0)
    ledger.take(1)
    ledger.finish(1, ledger.already_answered(1, 100))

    assert (ledger.commit_point, ledger.mark()) == (0, {RESULTS: 45})


def test_rule_2_the_mark_waits_at_the_first_undelivered_answer() -> None:
    """Without this there were 394 duplicates."""
    ledger = Ledger(0, {RESULTS: 50}, answers({(9, 100): ref(48)}))
    ledger.take(0)
    ledger.finish(0, ref(50))

    assert ledger.mark() == {RESULTS: 48}


def test_the_mark_goes_on_with_the_answers_whose_events_have_come_page_by_page() -> None:
    """After a crash or a rebalance in the middle of a recovery only the rest is looked through again."""
    found = {(offset, 100): ref(offset + 7) for offset in range(3 * 1024)}
    ledger = Ledger(0, {RESULTS: 5000, "own": 9}, answers(found | {(2500, 100): ResultRef("own", 4)}))
    marks = []
    for offset in range(3 * 1024):
        ledger.take(offset, 100)
        ledger.finish(offset, ledger.already_answered(offset, 100))
        marks += [ledger.mark()] if offset % 1000 == 999 or offset == 3071 else []

    assert marks == [
        {RESULTS: 7, "own": 4}, {RESULTS: 1031, "own": 4}, {RESULTS: 2055, "own": 4}, {RESULTS: 5000, "own": 9},
    ]  # fmt: skip


def test_rule_2_ends_when_the_last_scanned_answer_was_delivered() -> None:
    ledger = Ledger(0, {RESULTS: 50}, answers({(0, 100): ref(48)}))
    ledger.take(0)
    ledger.finish(0, ref(48))

    assert ledger.mark() == {RESULTS: 50}


def test_rule_2_ends_when_the_log_has_passed_the_scanned_answers() -> None:
    ledger = Ledger(0, {RESULTS: 50}, answers({(3, 100): ref(48)}))
    ledger.take(7)

    assert ledger.mark() == {RESULTS: 50}


def test_rule_3_an_event_with_the_same_offset_and_another_timestamp_is_not_skipped() -> None:
    """A recreated topic starts its offsets again: skipping by offset alone lost 800 of 800 events."""
    ledger = Ledger(0, {RESULTS: 50}, answers({(0, 100): ref(48)}))

    assert ledger.already_answered(0, 101) is None
    assert ledger.already_answered(0, 100) == ref(48)


def test_a_log_that_starts_again_begins_a_new_book() -> None:
    """A topic recreated under a running worker: old offsets must not let new ones be committed."""
    ledger = Ledger(990, {RESULTS: 50})
    ledger.take(990)
    ledger.take(991)
    ledger.take(0)
    ledger.take(1)

    assert ledger.commit_point == 0


def test_an_event_of_the_log_before_does_not_finish_one_of_the_log_now() -> None:
    ledger = Ledger(0, {RESULTS: 50})
    old = ledger.take(0)
    ledger.take(1)
    new = ledger.take(0)
    assert (old, new) == (0, 1)
    ledger.finish(0, ref(50), 0)

    assert ledger.commit_point == 0

    ledger.finish(0, ref(51), 1)

    assert ledger.commit_point == 1


def test_a_record_that_is_delivered_twice_is_taken_once() -> None:
    ledger = Ledger(0)

    assert [ledger.take(n, 1000 + n) for n in (0, 1, 0, 1)] == [0, 0, None, None]


def test_the_newest_record_delivered_again_after_its_end_is_not_taken_again() -> None:
    ledger = Ledger(0)
    ledger.take(0, 1000)
    ledger.finish(0, ref(0))

    assert (ledger.take(0, 1000), ledger.commit_point) == (None, 1)


def test_another_record_at_the_same_offset_is_of_another_log() -> None:
    ledger = Ledger(0)
    ledger.take(0, 1000)

    assert (ledger.take(0, 2000), ledger.commit_point) == (1, 0)


class LedgerAgainstModel(RuleBasedStateMachine):
    """The ledger and a naive model agree after any sequence of deliveries and endings."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(0, {RESULTS: 0})
        self.next = 0
        self.delivered: list[int] = []
        self.finished: dict[int, int] = {}
        self.result_end = 0

    @rule(gap=st.integers(0, 3))
    def deliver(self, gap: int) -> None:
        offset = self.next + gap
        self.ledger.take(offset)
        self.delivered.append(offset)
        self.next = offset + 1

    @precondition(lambda self: len(self.finished) < len(self.delivered))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from([o for o in self.delivered if o not in self.finished]))
        self.ledger.finish(offset, ref(self.result_end))
        self.finished[offset] = self.result_end
        self.result_end += 1

    @rule()
    def commit(self) -> None:
        """Asking for the mark prunes the books, which must not change an answer."""
        self.ledger.mark()

    @property
    def unfinished(self) -> list[int]:
        return [offset for offset in self.delivered if offset not in self.finished]

    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        assert self.ledger.commit_point == min(self.unfinished, default=self.next)
        assert self.ledger.unfinished == len(self.unfinished)

    @invariant()
    def the_mark_covers_every_result_ahead_of_the_commit_point(self) -> None:
        point = self.ledger.commit_point
        ahead = [result for offset, result in self.finished.items() if offset >= point]

        assert self.ledger.mark() == {RESULTS: min(ahead, default=self.result_end)}


LedgerAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerAgainstModel = LedgerAgainstModel.TestCase


def test_offsets_without_a_record_are_passed_once_everything_before_them_is_taken() -> None:
    ledger = Ledger(3)
    ledger.pass_gap(4, 9)

    assert ledger.commit_point == 3

    for offset in (3, 4):
        ledger.take(offset, 1000)
        ledger.finish(offset, ref(offset))
    ledger.pass_gap(4, 9)

    assert ledger.commit_point == 9


def test_a_gap_behind_an_unfinished_offset_is_committed_after_it() -> None:
    ledger = Ledger(0)
    ledger.take(0, 1000)
    ledger.pass_gap(0, 5)

    assert ledger.commit_point == 0

    ledger.finish(0, ref(0))

    assert ledger.commit_point == 5


def test_a_partition_that_holds_no_record_at_all_is_passed() -> None:
    ledger = Ledger(3)
    ledger.pass_gap(None, 9)

    assert ledger.commit_point == 9


def test_a_position_in_front_of_the_books_changes_nothing() -> None:
    """Faust has seeked back, and the records come again."""
    ledger = Ledger(3)
    ledger.pass_gap(None, 1)

    assert ledger.commit_point == 3


def test_the_newest_record_that_comes_again_behind_a_gap_is_still_a_repeat() -> None:
    ledger = Ledger(0)
    ledger.take(0, 1000)
    ledger.finish(0, ref(0))
    ledger.pass_gap(0, 5)

    assert ledger.take(0, 1000) is None
    assert ledger.commit_point == 5


@pytest.mark.parametrize("finished", [True, False])
def test_events_that_got_the_offsets_of_lost_markers_are_taken_and_leave_what_is_in_work_in_the_books(
    *, finished: bool
) -> None:
    """A broker has lost what nobody hands out, and what lies before is still there."""
    ledger = Ledger(3)
    ledger.take(4, 1000)
    if finished:
        ledger.finish(4, ref(4))
    ledger.pass_gap(4, 9)
    passed = ledger.commit_point, ledger.is_ahead(1)
    again = ledger.take(6, 2000)

    assert (passed, again) == ((9, False) if finished else (4, True), 0)
    assert ledger.commit_point == (6 if finished else 4)
    assert (ledger.is_ahead(2), ledger.is_ahead(3)) == (not finished, not finished)


def test_events_that_got_the_offsets_of_lost_markers_before_the_first_record_are_taken() -> None:
    ledger = Ledger(3)
    ledger.pass_gap(None, 9)

    assert (ledger.take(3, 1000), ledger.commit_point) == (0, 3)


def test_only_what_was_there_at_the_reset_is_a_replay() -> None:
    ledger = Ledger(0, replay_until=7)

    assert (ledger.is_replay(6), ledger.is_replay(7), Ledger(0).is_replay(0)) == (True, False, False)
