"""Backpressure from the workers' lag."""

import asyncio

import pytest

from contracts.errors import Backlogged, LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings.overload import OverloadSettings
from gateways.ingress.backlog import Backlog
from tests.support import FakeClock, eventually_async, no_threads

TOPICS = {"standard": "t.standard", "bulk": "t.bulk"}


class Lab:
    """A backlog with a clock and a lag by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lag: int | Exception | None = 0
        settings = OverloadSettings(max_lag={"bulk": 100}, lag_interval_s=5.0, lag_resume_share=0.5)
        self.backlog = Backlog(settings, TOPICS, self._read, self.clock)

    def _read(self, topic: str) -> int | None:
        assert topic == "t.bulk"
        if isinstance(self.lag, Exception):
            raise self.lag
        return self.lag

    async def is_open(self, lag: int | Exception | None = None, topic: str = "t.bulk") -> bool:
        """Read a lag, and tell whether the lane takes events then."""
        self.lag = lag
        await self.backlog.look()
        return self.takes(topic)

    def takes(self, topic: str = "t.bulk") -> bool:
        """Tell whether the lane takes events now."""
        try:
            self.backlog.check(topic)
        except Backlogged:
            return False
        return True


def sample(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"penstock_backpressure_{name}", {"lane": "bulk"})


async def test_a_lane_that_is_too_far_behind_is_closed_and_opened_again_at_its_mark() -> None:
    lab = Lab()

    assert [await lab.is_open(lag) for lag in (100, 101, 60, 51, 50, 100)] == [True, False, False, False, True, True]


async def test_a_refusal_says_when_to_come_back() -> None:
    lab = Lab()
    await lab.is_open(101)

    with pytest.raises(Backlogged, match="bulk is more than 100") as caught:
        lab.backlog.check("t.bulk")
    assert caught.value.retry_after_s == 10.0


async def test_other_lanes_go_on() -> None:
    assert await Lab().is_open(1000, topic="t.standard")


async def test_one_failed_reading_changes_nothing() -> None:
    lab = Lab()
    assert not await lab.is_open(1000)

    assert not await lab.is_open(LogUnavailable("away"))


async def test_a_lag_that_cannot_be_read_for_long_turns_nobody_away_and_shows() -> None:
    lab = Lab()
    assert not await lab.is_open(1000)
    lab.clock.advance(15.1)

    # Also while a reading hangs.
    lab.backlog.check("t.bulk")
    assert await lab.is_open(LogUnavailable("away"))
    assert (sample("lag_unknown"), sample("refusing")) == (1, 0)
    assert not await lab.is_open(1000)
    assert (sample("lag_unknown"), sample("refusing"), sample("lag_records")) == (0, 1, 1000)


async def test_a_group_that_never_committed_turns_nobody_away() -> None:
    lab = Lab()

    assert await lab.is_open(None)
    assert sample("lag_unknown") == 1


async def test_it_reads_by_itself_until_it_is_closed() -> None:
    lab = Lab()
    lab.lag = 1000
    lab.backlog.start()

    await eventually_async(lambda: not lab.takes())
    await lab.backlog.aclose()
    assert lab.backlog._following is not None
    assert lab.backlog._following.done()


async def test_it_goes_on_when_no_thread_could_be_started_for_a_reading() -> None:
    settings = OverloadSettings(max_lag={"bulk": 100}, lag_interval_s=0.5)
    asked = list[str]()

    def read(topic: str) -> int:
        asked.append(topic)
        return 0

    backlog = Backlog(settings, TOPICS, read)
    with no_threads():
        backlog.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asked == []

    await eventually_async(lambda: asked)
    await backlog.aclose()
