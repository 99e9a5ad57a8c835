"""A limit that lanes share leaves room for each of them."""

from contracts.topics import RETRY_LANE
from streams.engine.shares import SharedLimit

LANES = ("interactive", "standard", "bulk")


def test_a_lane_that_fills_everything_leaves_the_others_their_part() -> None:
    limit = SharedLimit(80, LANES)
    while limit.admits("bulk", 1):
        limit.take("bulk", 1)

    assert (limit.held, limit.admits("interactive", 1), limit.admits("standard", 1)) == (60, True, True)


def test_all_lanes_together_hold_no_more_than_the_limit() -> None:
    limit = SharedLimit(80, LANES)
    for lane in LANES:
        while limit.admits(lane, 1):
            limit.take(lane, 1)

    assert limit.held == 80


def test_what_is_given_back_can_be_taken_by_another_lane() -> None:
    limit = SharedLimit(80, LANES)
    limit.take("bulk", 60)
    limit.take("standard", 10)

    assert not limit.admits("standard", 1)

    limit.take("bulk", -20)

    assert limit.admits("standard", 20)


def test_one_event_above_the_whole_limit_is_taken_when_its_lane_holds_nothing() -> None:
    limit = SharedLimit(80, LANES)

    assert limit.admits("standard", 1000)

    limit.take("standard", 1000)

    assert not limit.admits("standard", 1)


def test_the_lane_of_waiting_retries_takes_its_part_and_nothing_more() -> None:
    limit = SharedLimit(80, (*LANES, RETRY_LANE))
    while limit.admits(RETRY_LANE, 1):
        limit.take(RETRY_LANE, 1)

    assert limit.held == 10
    while limit.admits("interactive", 1):
        limit.take("interactive", 1)
    assert limit.held == 10 + 50


def test_one_event_above_the_whole_limit_leaves_the_other_lanes_their_part() -> None:
    limit = SharedLimit(80, LANES)
    limit.take("standard", 1000)
    limit.take("bulk", 1)

    assert (limit.admits("bulk", 9), limit.admits("bulk", 10)) == (True, False)
