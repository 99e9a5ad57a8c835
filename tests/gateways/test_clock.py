"""A clock that was set is noticed."""

import pytest

from contracts.metrics import REGISTRY
from gateways.clock import ClockWatch
from tests.gateways.driver import Gateway
from tests.support import FakeClock


def steps() -> float:
    return REGISTRY.get_sample_value("penstock_clock_steps_total") or 0.0


@pytest.mark.parametrize("by_s", [600, -600, 2])
def test_a_step_is_counted_once_and_warned_of_for_some_minutes(by_s: float) -> None:
    wall, steady = FakeClock(), FakeClock()
    watch, before = ClockWatch(wall.time, steady), steps()

    wall._elapsed_s += by_s
    watch.look()
    watch.look()

    assert steps() == before + 1
    assert watch.has_stepped
    steady.advance(301)
    assert not watch.has_stepped


def test_slewing_and_late_looks_are_no_steps() -> None:
    wall, steady = FakeClock(), FakeClock()
    watch, before = ClockWatch(wall.time, steady), steps()

    for _ in range(1000):
        wall.advance(10.005)
        steady.advance(10)
        watch.look()

    assert steps() == before
    assert not watch.has_stepped


async def test_readiness_warns_and_traffic_goes_on(gateway: Gateway) -> None:
    wall, steady = FakeClock(), FakeClock()
    gateway.parts.health.clock = ClockWatch(wall.time, steady)
    wall.advance(600)
    gateway.parts.health.clock.look()

    answer = await gateway.call("GET", "/readyz")

    assert answer.status == 200
    assert answer.json() == {"status": "ready", "warnings": ["clock_stepped"]}
