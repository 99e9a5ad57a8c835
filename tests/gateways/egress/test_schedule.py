"""The schedule of retries, and the breaker's waits."""

import pytest

from contracts.settings.egress import Breaker as BreakerSettings
from contracts.topics import DELIVERY_TIERS
from gateways.egress import schedule
from gateways.egress.breaker import Breaker
from gateways.egress.schedule import held_wait_s, patience_s, tier_for, untried_wait_s, wait_s
from tests.support import FakeClock


def test_the_docstring_is_the_schedule() -> None:
    rows = [line.split() for line in (schedule.__doc__ or "").splitlines() if line[:8].strip().isdigit()]
    units = {"s": 1, "m": 60, "h": 3600}
    total = 0.0
    for row, wait in zip(rows[1:], schedule.WAITS_S, strict=True):
        assert float(row[1]) * units[row[2]] == wait
        total += wait
    assert len(rows) == schedule.MAX_ATTEMPTS == 10
    assert total == patience_s(10) == 75 * 3600 + 35 * 60 + 5


def test_every_wait_of_the_schedule_has_a_tier_of_its_own_length() -> None:
    assert [DELIVERY_TIERS[tier_for(wait)] for wait in schedule.WAITS_S] == list(schedule.WAITS_S)


@pytest.mark.parametrize(
    ("attempt", "retry_after_s", "tier"),
    [
        (1, None, "5s"),
        (1, 3.0, "5s"),
        (1, 60.0, "1m"),
        (1, 61.0, "5m"),
        (4, 60.0, "2h"),
        (9, None, "24h"),
        (3, 1e9, "24h"),
    ],
)
def test_the_longer_of_schedule_and_retry_after_picks_the_tier(
    attempt: int, retry_after_s: float | None, tier: str
) -> None:
    assert tier_for(wait_s(attempt, retry_after_s)) == tier


def test_what_waits_in_memory_waits_five_minutes_at_most() -> None:
    assert [held_wait_s(attempt) for attempt in (1, 2, 3, 9, 50)] == [1.0, 2.0, 4.0, 256.0, 300.0]
    assert held_wait_s(1, 9_999.0) == 300.0


def test_what_was_not_tried_goes_round_less_and_less_often() -> None:
    assert untried_wait_s(0.0, 0.0, is_down=False) == 5.0
    assert untried_wait_s(10.0, 0.0, is_down=True) == 60.0
    assert untried_wait_s(7200.0, 0.0, is_down=True) == 3600.0
    assert untried_wait_s(0.0, 500.0, is_down=True) == 500.0


def test_what_waits_for_a_busy_destination_is_back_within_five_minutes() -> None:
    assert untried_wait_s(7200.0, 0.0, is_down=False) == 300.0


class TestBreaker:
    def breaker(self, **settings: float) -> tuple[Breaker, FakeClock]:
        clock = FakeClock()
        return Breaker(
            BreakerSettings.model_validate({"failures": 3, "base_s": 1.0, "max_s": 4.0} | settings), clock
        ), clock

    def test_it_opens_after_so_many_failures_in_a_row(self) -> None:
        breaker, _ = self.breaker()
        for outcome in (breaker.failed, breaker.failed, breaker.succeeded, breaker.failed, breaker.failed):
            outcome()
        assert not breaker.is_open

        breaker.failed()

        assert breaker.is_open

    def test_each_try_that_fails_doubles_the_wait_up_to_its_limit(self) -> None:
        breaker, clock = self.breaker(failures=1)
        waits = []
        for _ in range(4):
            breaker.failed()
            waits.append(breaker.retry_at_s - clock())
            clock.advance(waits[-1])

        assert waits == [1.0, 2.0, 4.0, 4.0]

    def test_stragglers_do_not_prolong_it(self) -> None:
        breaker, clock = self.breaker(failures=1)
        breaker.failed()
        until_s = breaker.retry_at_s
        clock.advance(0.5)
        breaker.failed()

        assert breaker.retry_at_s == until_s

    def test_a_destination_that_names_a_time_is_left_alone_until_then(self) -> None:
        breaker, clock = self.breaker()
        breaker.failed(30.0)

        assert breaker.retry_at_s == clock() + 30.0
        breaker.succeeded()
        assert not breaker.is_open

    def test_a_fault_that_an_operator_must_mend_opens_it_at_once(self) -> None:
        breaker, _ = self.breaker()
        breaker.failed(opens=True)

        assert breaker.is_open

    def test_nobody_is_believed_who_names_a_time_beyond_an_hour(self) -> None:
        breaker, clock = self.breaker()
        breaker.failed(86_400.0)

        assert breaker.retry_at_s == clock() + 3600.0
