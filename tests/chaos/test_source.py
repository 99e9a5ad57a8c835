"""What the sender of a chaos run tells of the brokers."""

from tests.chaos.source import silences


def test_a_time_in_which_records_waited_and_none_was_confirmed_is_a_silence() -> None:
    assert silences([(0, 10), (20, 4000), (30, 4000), (4010, 4020)]) == [(20, 4000)]


def test_a_time_in_which_nothing_was_sent_is_none() -> None:
    assert silences([(0, 10), (5000, 5010), (5020, 7000), (7010, 7020)]) == [(5020, 7000)]


def test_a_record_that_one_broker_has_not_confirmed_yet_is_no_silence_while_others_confirm() -> None:
    assert silences([(0, 3000), (500, 600), (1400, 1500), (2300, 2400)]) == []


def test_without_records_there_is_none() -> None:
    assert silences([]) == []
