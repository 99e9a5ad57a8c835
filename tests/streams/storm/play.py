"""Plays a seed outside of real time, and tells what did not hold."""

import asyncio
import contextlib
import gc
import logging
import random
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import structlog

from contracts.payloads import InferenceRequest
from streams.engine.item import Item
from streams.job import Job
from tests.streams.storm.oracle import violations
from tests.streams.storm.plan import Plan, draw
from tests.streams.storm.world import World
from tests.streams.virtual_clock import VirtualClockLoop, VirtualDatetime, VirtualTime

_HEAVY = (Job, Item, InferenceRequest)
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
            stack.enter_context(mock.patch(f"{module}.time", VirtualTime, create=True))
        clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
        stack.enter_context(mock.patch("streams.providers.limited.time", clock))
        runner = stack.enter_context(asyncio.Runner(loop_factory=VirtualClockLoop))
        return runner.run(_play(seed))


@contextlib.contextmanager
def _garbage() -> Iterator[list[str]]:
    """Look for events that have ended and would wait for the next collection of garbage; yield what will be found."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        counts = Counter(type(one).__name__ for one in gc.garbage if isinstance(one, _HEAVY))
        found.extend(f"left as garbage: {count} {kind}" for kind, count in counts.items())
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def _play(seed: int) -> Played:
    found: list[str] = []

    def overlooked(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context.get('message')}: {context.get('exception')!r}")

    asyncio.get_running_loop().set_exception_handler(overlooked)
    plan = draw(seed)
    world = World(plan)
    with _garbage() as left:
        await world.run()
    if all(worker.crash is None for worker in world.fleet.everybody):
        # What ends a process holds the event that it came with.
        found += left
    return Played([*found, *violations(world)], world.fleet.trace, plan)
