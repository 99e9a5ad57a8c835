"""An event loop whose clock jumps to the next timer: an hour of waiting takes no time, and in the right order.

Blocking: never for a timer; at most 5 s for a thread or process that reports back.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Self

import pytest

_THREAD_LIMIT_S = 5.0
_START_S = 1000.0
_START_AT = datetime(2026, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.BaseSelector):
    """Asks the real selector without waiting, and moves the clock instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now_s = _START_S

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            # No timer is set: only a thread can go on from here, or nothing ever will.
            ready = self._real.select(_THREAD_LIMIT_S)
            if not ready:
                message = "the loop waits for something that nothing will ever bring about"
                raise AssertionError(message)
            return ready
        ready = self._real.select(0)
        if not ready:
            self.now_s += max(0.0, timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` starts at 1,000 s."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._jumping.now_s


class VirtualDatetime(datetime):
    """A datetime class whose `now` follows the running loop's clock; patch it in where a module says `datetime`."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        """Return 2026-01-01 plus the virtual seconds since the loop began."""
        instant = now_at().astimezone(tz)
        return cls.fromtimestamp(instant.timestamp(), tz)


class VirtualTime:
    """Stands for the `time` module where a module asks it for the date."""

    @staticmethod
    def time() -> float:
        """Return virtual Unix seconds."""
        return now_at().timestamp()

    @staticmethod
    def time_ns() -> int:
        """Return virtual Unix nanoseconds, in whole microseconds."""
        return round(now_at().timestamp() * 1_000_000) * 1000


def now_at() -> datetime:
    """Return the virtual instant."""
    return _START_AT + timedelta(seconds=asyncio.get_running_loop().time() - _START_S)


async def settled(rounds: int = 50) -> None:
    """Return when everything that can run without time passing has run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def elapsed_s(work: Awaitable[Any]) -> float:
    """Return how long something took, virtual seconds."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    await work
    return loop.time() - start


@pytest.hookimpl
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give a folder's async tests this loop: its conftest imports this function."""
    return {"virtual": VirtualClockLoop}


@pytest.fixture(autouse=True)
def virtual_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the modules that compare instants with deadlines follow the loop's clock; imported by a folder's conftest."""
    for module in ("streams.failures", "streams.parking", "streams.settle", "streams.job"):
        monkeypatch.setattr(f"{module}.datetime", VirtualDatetime)
        # Not all of them ask both.
        monkeypatch.setattr(f"{module}.time", VirtualTime, raising=False)


__all__ = [
    "VirtualClockLoop",
    "VirtualDatetime",
    "VirtualTime",
    "elapsed_s",
    "now_at",
    "pytest_asyncio_loop_factories",
    "settled",
    "virtual_dates",
]
