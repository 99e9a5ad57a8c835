"""When an outcome in time is not to be expected any more."""

from gateways.egress.forecast import ENOUGH, WINDOW_S, Forecast
from tests.support import FakeClock

KIND = ("interactive", "t")


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.forecast = Forecast(self.clock)
        self._serial = 0

    def begin(self, kind: tuple[str, str] = KIND) -> str:
        self._serial += 1
        self.forecast.begin(f"r{self._serial}", kind)
        return f"r{self._serial}"

    def took(self, seconds: float, times: int = 1) -> None:
        ids = [self.begin() for _ in range(times)]
        self.clock.advance(seconds)
        for one in ids:
            self.forecast.end(one)


def test_nothing_is_foreseen_without_experience() -> None:
    bench = Bench()
    bench.took(30, ENOUGH - 1)

    assert not bench.forecast.will_miss(KIND, 10)


def test_enough_slow_outcomes_and_none_that_was_quick_foresee_a_miss() -> None:
    bench = Bench()
    bench.took(30, ENOUGH)

    assert bench.forecast.will_miss(KIND, 29)
    assert not bench.forecast.will_miss(KIND, 30), "they would have made it"
    assert not bench.forecast.will_miss(("bulk", "t"), 29)


def test_one_quick_outcome_ends_it() -> None:
    bench = Bench()
    bench.took(30, 50)
    bench.took(1)

    assert not bench.forecast.will_miss(KIND, 29)


def test_old_experience_does_not_count() -> None:
    bench = Bench()
    bench.took(30, ENOUGH)
    bench.clock.advance(WINDOW_S + 1)

    assert not bench.forecast.will_miss(KIND, 10)


def test_events_that_are_open_too_long_count_although_nothing_ends() -> None:
    bench = Bench()
    for _ in range(ENOUGH):
        bench.begin()
    bench.clock.advance(9)
    bench.begin(("bulk", "t"))
    assert not bench.forecast.will_miss(KIND, 10)

    bench.clock.advance(2)

    assert bench.forecast.will_miss(KIND, 10)
    assert not bench.forecast.will_miss(("bulk", "t"), 1), "one is not enough"


def test_open_events_are_forgotten_in_the_end() -> None:
    bench = Bench()
    for _ in range(ENOUGH):
        bench.begin()
    bench.clock.advance(1000)

    assert not bench.forecast.will_miss(KIND, 10)
    assert "r1" not in bench.forecast


def test_what_was_not_accepted_is_no_experience() -> None:
    bench = Bench()
    for one in [bench.begin() for _ in range(ENOUGH)]:
        bench.forecast.forget(one)
    bench.clock.advance(100)

    assert not bench.forecast.will_miss(KIND, 10)


def test_asking_again_makes_sense_when_the_others_had_their_outcome() -> None:
    bench = Bench()
    assert bench.forecast.retry_after_s(KIND, 0) == 2
    bench.took(12, 3)

    assert bench.forecast.retry_after_s(KIND, 4) == 8
    assert bench.forecast.retry_after_s(KIND, 20) == 1
    bench.took(500)
    assert bench.forecast.retry_after_s(KIND, 0) == 60
