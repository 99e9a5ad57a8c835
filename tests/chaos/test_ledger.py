"""The ledger finds what it is there for, and nothing else."""

import dataclasses

from contracts.payloads import DEAD_LETTER_MARKER_TYPE, DUPLICATE_TYPE, EXPIRED_TYPE
from tests.chaos.ledger import Freeze, Ledger, Letter, LogEvent, Outcome, Place, Reset, Sample

TOPIC = "events"
KIND = "penstock.result.v1"


def event(
    offset: int, key: bytes = b"k", stamp: int | None = None, incarnation: int = 0, topic: str = TOPIC
) -> LogEvent:
    place = Place(topic, 0, offset, 1000 + offset if stamp is None else stamp)
    return LogEvent(place, key, f"e{incarnation}-{offset}", incarnation, f"digest {offset}")


def outcome(of: LogEvent, offset: int, stamp: int = 2000, writer: str = "w1", kind: str = KIND) -> Outcome:
    return Outcome(of.place, "results", 0, offset, kind, stamp, writer)


A, B = event(0), event(1)
# B again, as the record of the same event: what a sender repeats.
B_AGAIN = dataclasses.replace(B, name=A.name)
DIES = {A.name: (DEAD_LETTER_MARKER_TYPE,)}
LETTER, OTHER = Letter("digest 0", "invalid_payload"), Letter("another", "invalid_payload")


def test_a_run_in_which_everything_ended_once_and_in_order_is_clean() -> None:
    balance = Ledger([A, B], [outcome(A, 0), outcome(B, 1)], ["e0-0", "e0-1"]).close()
    assert not any((balance.lost, balance.unlogged, balance.duplicates, balance.disorder, balance.foreign))


def test_an_event_without_an_outcome_is_lost() -> None:
    assert len(Ledger([A, B], [outcome(A, 0)], []).close().lost) == 1


def test_an_accepted_event_that_is_not_on_the_log_is_named() -> None:
    assert Ledger([A], [outcome(A, 0)], ["e0-0", "e9"]).close().unlogged == ["e9"]


def test_a_second_outcome_is_a_duplicate() -> None:
    assert len(Ledger([A], [outcome(A, 0), outcome(A, 1)], []).close().duplicates) == 1


def test_a_repeat_counts_as_buffered_only_just_before_a_freeze_of_its_writer() -> None:
    found = [outcome(A, 0, stamp=2900, writer="w1"), outcome(A, 1, stamp=9000, writer="w2")]
    proved = Ledger([A], found, [], freezes=[Freeze("w1", 3000, 8000)], window_ms=500).close()
    other = Ledger([A], found, [], freezes=[Freeze("w3", 3000, 8000)], window_ms=500).close()
    early = Ledger([A], found, [], freezes=[Freeze("w1", 3500, 8000)], window_ms=500).close()
    assert (len(proved.buffered_repeats), len(proved.duplicates)) == (1, 0)
    assert (len(other.duplicates), len(early.duplicates)) == (1, 1)


def test_what_was_given_to_a_producer_while_no_broker_confirmed_is_still_in_it_at_a_freeze() -> None:
    found = [outcome(A, 0, stamp=2900, writer="w1"), outcome(A, 1, stamp=9000, writer="w2")]
    proved = Ledger([A], found, [], freezes=[Freeze("w1", 8000, 9000, 3000)], window_ms=500).close()
    early = Ledger([A], found, [], freezes=[Freeze("w1", 8000, 9000, 3500)], window_ms=500).close()
    assert (len(proved.buffered_repeats), len(early.buffered_repeats)) == (1, 0)


def test_a_repeat_was_not_buffered_when_a_record_behind_it_was_confirmed_before_its_writer_went_on() -> None:
    other = outcome(B, 1, stamp=6000, writer="w2")
    found = [outcome(A, 0, stamp=2900, writer="w1"), other, outcome(A, 2, stamp=20_000, writer="w2")]

    def buffered(until_ms: int, *more: Freeze) -> int:
        freezes = [Freeze("w1", 3000, until_ms), *more]
        return len(Ledger([A, B], found, [], freezes=freezes, window_ms=500).close().buffered_repeats)

    assert (buffered(6500), buffered(6499)) == (0, 1)
    # The record behind it may itself have waited in a frozen producer.
    assert buffered(6500, Freeze("w2", 6100, 9000)) == 1


def test_a_later_event_of_a_key_before_an_earlier_one_is_disorder() -> None:
    assert len(Ledger([A, B], [outcome(B, 0), outcome(A, 1)], []).close().disorder) == 1


def test_a_repetition_ends_with_its_marker_without_a_call_and_may_pass() -> None:
    balance = Ledger([A, B_AGAIN], [outcome(B_AGAIN, 0, kind=DUPLICATE_TYPE), outcome(A, 1)], []).close()
    assert not any((balance.lost, balance.disorder, balance.duplicates, balance.unfit))
    assert dict(balance.expected_calls) == {"e0-0": 1}


def test_an_event_whose_only_end_says_that_it_repeats_another_is_lost() -> None:
    marker = outcome(A, 0, kind=DUPLICATE_TYPE)
    assert len(Ledger([A], [marker], []).close().lost) == 1
    assert len(Ledger([A, B_AGAIN], [marker, outcome(B_AGAIN, 1, kind=DUPLICATE_TYPE)], []).close().lost) == 2


def test_a_replay_that_is_taken_for_a_repetition_of_itself_is_lost() -> None:
    found = [outcome(A, 0), outcome(A, 1, kind=DUPLICATE_TYPE)]
    assert len(Ledger([A], found, [], [Reset({(TOPIC, 0): 0}, {0: 1})]).close().lost) == 1


def test_a_healthy_event_has_to_end_with_a_result_and_a_bad_one_must_not() -> None:
    for kind in (DEAD_LETTER_MARKER_TYPE, EXPIRED_TYPE):
        assert len(Ledger([A], [outcome(A, 0, kind=kind)], []).close().unfit) == 1
    assert len(Ledger([A], [outcome(A, 0)], [], fates=DIES).close().unfit) == 1


def test_an_event_may_end_in_every_way_that_it_gives_reason_for() -> None:
    fates = {A.name: (KIND, EXPIRED_TYPE)}
    assert not Ledger([A], [outcome(A, 0, kind=EXPIRED_TYPE)], [], fates=fates).close().unfit
    assert not Ledger([A], [outcome(A, 0)], [], fates=fates).close().unfit


def test_a_marker_needs_a_letter_that_is_the_events_record() -> None:
    found = [outcome(A, 0, kind=DEAD_LETTER_MARKER_TYPE)]

    def unburied(*letters: Letter) -> int:
        return len(Ledger([A], found, [], fates=DIES, letters={A.place: letters}).close().unburied)

    assert (unburied(), unburied(OTHER), unburied(LETTER, OTHER)) == (1, 1, 1)
    # A worker that is killed between letter and marker leaves one more.
    assert (unburied(LETTER), unburied(LETTER, LETTER)) == (0, 0)


def test_each_replay_has_a_letter_of_its_own() -> None:
    found = [outcome(A, 0, kind=DEAD_LETTER_MARKER_TYPE), outcome(A, 1, kind=DEAD_LETTER_MARKER_TYPE)]
    resets = [Reset({(TOPIC, 0): 0}, {0: 1})]
    one = Ledger([A], found, [], resets, fates=DIES, letters={A.place: [LETTER]}).close()
    two = Ledger([A], found, [], resets, fates=DIES, letters={A.place: [LETTER] * 2}).close()
    assert (len(one.unburied), len(two.unburied)) == (1, 0)


def test_a_letter_of_a_healthy_event_is_found_although_a_result_came_after_it() -> None:
    assert len(Ledger([A], [outcome(A, 0)], [], letters={A.place: [LETTER]}).close().unfit) == 1


def test_as_many_events_may_be_too_large_as_a_broker_can_have_said() -> None:
    found = [outcome(one, offset, kind=DEAD_LETTER_MARKER_TYPE) for offset, one in enumerate((A, B))]

    def unfit(most: int, reason: str = "too_large") -> int:
        letters = {one.place: [Letter(one.digest, reason)] for one in (A, B)}
        return len(Ledger([A, B], found, [], letters=letters, too_large=most).close().unfit)

    assert unfit(2) == 0
    # The marker and the letter of both.
    assert (unfit(1), unfit(2, "exhausted")) == (4, 4)


def test_a_letter_of_no_event_is_found() -> None:
    assert len(Ledger([A], [outcome(A, 0)], [], letters={B.place: [LETTER]}).close().foreign) == 1


def test_an_outcome_on_another_partition_than_its_event_is_found() -> None:
    assert len(Ledger([A], [dataclasses.replace(outcome(A, 0), partition=1)], []).close().astray) == 1


def test_events_of_other_keys_may_pass() -> None:
    other = event(1, key=b"other")
    assert not Ledger([A, other], [outcome(other, 0), outcome(A, 1)], []).close().disorder


def test_after_an_operators_reset_events_end_once_more_and_must() -> None:
    reset = Reset({(TOPIC, 0): 1}, {0: 2})
    replayed = [outcome(A, 0), outcome(B, 1), outcome(B, 2)]
    assert not Ledger([A, B], replayed, [], [reset]).close().duplicates
    assert not Ledger([A, B], replayed, [], [reset]).close().lost
    assert len(Ledger([A, B], replayed[:2], [], [reset]).close().lost) == 1
    assert len(Ledger([A, B], [*replayed, outcome(A, 3)], [], [reset]).close().duplicates) == 1


def test_a_recreated_topics_event_is_another_one_although_its_offset_is_the_same() -> None:
    again = event(0, stamp=5000, incarnation=1)
    assert len(Ledger([A, again], [outcome(A, 0)], []).close().lost) == 1
    assert not Ledger([A, again], [outcome(A, 0), outcome(again, 1)], []).close().duplicates


def test_a_commit_over_an_unfinished_event_is_found() -> None:
    found = [outcome(A, 0), outcome(B, 1)]
    good = Ledger([A, B], found, [], samples=[Sample(0, {(TOPIC, 0): 1}, {0: 1})]).close()
    bad = Ledger([A, B], found, [], samples=[Sample(0, {(TOPIC, 0): 2}, {0: 1})]).close()
    assert (len(good.ahead), len(bad.ahead)) == (0, 1)


def test_an_event_that_has_waited_on_the_retry_topic_may_be_committed_before_its_end() -> None:
    found, samples = [outcome(A, 0), outcome(B, 1)], [Sample(0, {(TOPIC, 0): 2}, {0: 1})]

    assert Ledger([A, B], found, [], samples=samples, parked=frozenset({B.place})).close().ahead == []


def test_a_partition_with_work_that_ends_nothing_is_a_stall() -> None:
    late = event(1, stamp=2100)
    assert Ledger([A, late], [outcome(A, 0, 2000), outcome(late, 1, 9100)], []).close().stall_ms() == 7000


def test_a_lane_that_stands_still_is_a_stall_while_another_goes_on_with_the_same_result_partition() -> None:
    late = event(1, stamp=2100)
    others = [event(number, stamp=2000 + 500 * number, topic="interactive") for number in range(14)]
    found = [outcome(one, 1 + number, 2200 + 500 * number) for number, one in enumerate(others)]
    ends = [outcome(A, 0, 2000), *found, outcome(late, 15, 9100)]
    assert Ledger([A, late, *others], ends, []).close().stall_ms() == 7000


def test_a_stall_before_the_first_outcome_begins_with_the_oldest_event() -> None:
    assert Ledger([A, B], [outcome(B, 0, 8001), outcome(A, 1, 8002)], []).close().stall_ms() == 7001


def test_a_stall_counts_for_the_last_fault_before_its_end() -> None:
    found = [outcome(A, 0, 2000), outcome(event(1, stamp=2100), 1, 9100), outcome(event(2, stamp=20_000), 2, 23_000)]
    events = [A, event(1, stamp=2100), event(2, stamp=20_000)]
    balance = Ledger(events, found, []).close()
    acts = [(1500, "kill"), (12_000, "join"), (21_000, "term")]
    assert balance.stalls_after(acts) == {"kill": 7000, "join": 0, "term": 3000}


def test_a_time_in_which_no_broker_confirms_anything_is_no_stall_after_a_fault() -> None:
    balance = Ledger(
        [A, event(1, stamp=2100)], [outcome(A, 0, 2000), outcome(event(1, stamp=2100), 1, 9100)], []
    ).close()
    assert balance.stalls_after([(1500, "broker_kill")], [(1900, 4100), (8100, 9900)]) == {"broker_kill": 4000}
    assert balance.stall_ms([(1900, 4100), (8100, 9900)]) == 4000
