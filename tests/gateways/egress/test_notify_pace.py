"""The rate of an endpoint."""

import asyncio

from gateways.egress.notify_pace import Pace
from tests.support import FakeClock


async def test_turns_are_spaced_evenly() -> None:
    clock, waits = FakeClock(), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(round(seconds, 6))

    pace = Pace(10.0, clock, sleep)
    await asyncio.gather(*(pace.turn() for _ in range(4)))
    clock.advance(10)
    await pace.turn()

    assert waits == [0.1, 0.2, 0.3]


async def test_without_a_rate_nobody_waits() -> None:
    async def sleep(_seconds: float) -> None:
        raise AssertionError

    pace = Pace(None, FakeClock(), sleep)
    for _ in range(100):
        await pace.turn()
