"""Plays a seed outside of real time, and tells what did not hold."""

import asyncio
import contextlib
import logging
import random
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import structlog

from tests.streams.storm.oracle import violations
from tests.streams.storm.plan import Plan, draw
from tests.streams.storm.world import World
from tests.streams.virtual_clock import VirtualClockLoop, VirtualDatetime, VirtualTime

_DATED = ("streams.failures", "streams.parking", "streams.settle", "streams.job")


class Played(NamedTuple):
    """What came out.

    Attributes:
        violations: what did not hold.
        trace: what has happened.
    """

    violations: list[str]
    trace: list[str]
    plan: Plan


def play(seed: int) -> Played:
    """Play a seed. What is drawn is the same every time, and nearly always the order of what happens."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    random.seed(seed)
    with contextlib.ExitStack() as stack:
        for module in _DATED:
            stack.enter_context(mock.patch(f"{module}.datetime", VirtualDatetime))
            stack.enter_context(mock.patch(f"{module}.time", VirtualTime))
        clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
        stack.enter_context(mock.patch("streams.providers.limited.time", clock))
        runner = stack.enter_context(asyncio.Runner(loop_factory=VirtualClockLoop))
        return runner.run(_play(seed))


async def _play(seed: int) -> Played:
    found: list[str] = []

    def overlooked(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context.get('message')}: {context.get('exception')!r}")

    asyncio.get_running_loop().set_exception_handler(overlooked)
    plan = draw(seed)
    world = World(plan)
    await world.run()
    return Played([*found, *violations(world)], world.fleet.trace, plan)
