"""The ideal schedule under key order."""

from bench.ideal import in_turn, makespan


def test_independent_events_fill_the_slots() -> None:
    assert makespan([(n, 1.0) for n in range(6)], slots=3) == 2.0


def test_events_of_one_key_follow_each_other_however_many_slots_there_are() -> None:
    assert makespan([("k", 1.0), ("k", 2.0), ("k", 3.0)], slots=10) == 6.0


def test_a_slow_key_holds_up_nobody_else() -> None:
    slow = [("slow", 5.0), ("slow", 1.0)]
    assert makespan(slow + [(n, 1.0) for n in range(5)], slots=2) == 6.0


def test_a_key_that_waits_takes_no_slot() -> None:
    assert makespan([("a", 2.0), ("a", 2.0), ("b", 4.0)], slots=2) == 4.0


def test_no_events_take_no_time() -> None:
    assert makespan([], slots=1) == 0.0


def test_keys_come_in_turn() -> None:
    assert in_turn([1.0, 2.0, 3.0], keys=2) == [(0, 1.0), (1, 2.0), (0, 3.0)]
