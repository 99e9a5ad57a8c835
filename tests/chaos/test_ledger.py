"""The ledger finds what it is there for, and nothing else."""

import dataclasses

from contracts.payloads import DUPLICATE_TYPE
from tests.chaos.ledger import Freeze, Ledger, LogEvent, Outcome, Place, Reset, Sample

TOPIC = "events"
KIND = "penstock.result.v1"


def event(offset: int, key: bytes = b"k", stamp: int | None = None, incarnation: int = 0) -> LogEvent:
    place = Place(TOPIC, 0, offset, 1000 + offset if stamp is None else stamp)
    return LogEvent(place, key, f"e{incarnation}-{offset}", incarnation)


def outcome(of: LogEvent, offset: int, stamp: int = 2000, writer: str = "w1") -> Outcome:
    return Outcome(of.place, "results", 0, offset, KIND, stamp, writer)


A, B = event(0), event(1)


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
    proved = Ledger([A], found, [], freezes=[Freeze("w1", 3000)], window_ms=500).close()
    other = Ledger([A], found, [], freezes=[Freeze("w3", 3000)], window_ms=500).close()
    early = Ledger([A], found, [], freezes=[Freeze("w1", 3500)], window_ms=500).close()
    assert (len(proved.buffered_repeats), len(proved.duplicates)) == (1, 0)
    assert (len(other.duplicates), len(early.duplicates)) == (1, 1)


def test_what_was_given_to_a_producer_while_no_broker_confirmed_is_still_in_it_at_a_freeze() -> None:
    found = [outcome(A, 0, stamp=2900, writer="w1"), outcome(A, 1, stamp=9000, writer="w2")]
    proved = Ledger([A], found, [], freezes=[Freeze("w1", 8000, 3000)], window_ms=500).close()
    early = Ledger([A], found, [], freezes=[Freeze("w1", 8000, 3500)], window_ms=500).close()
    assert (len(proved.buffered_repeats), len(early.buffered_repeats)) == (1, 0)


def test_a_later_event_of_a_key_before_an_earlier_one_is_disorder() -> None:
    assert len(Ledger([A, B], [outcome(B, 0), outcome(A, 1)], []).close().disorder) == 1


def test_a_repetition_ends_with_its_marker_without_a_call_and_may_pass() -> None:
    balance = Ledger([A, B], [dataclasses.replace(outcome(B, 0), kind=DUPLICATE_TYPE), outcome(A, 1)], []).close()
    assert not any((balance.lost, balance.disorder, balance.duplicates))
    assert dict(balance.expected_calls) == {"e0-0": 1}


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
