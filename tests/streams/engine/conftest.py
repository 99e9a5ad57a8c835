"""Every async test of this folder runs on a virtual clock, and leaves no item that would start when its loop closes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from streams.engine import dispatcher
from tests.streams.virtual_clock import pytest_asyncio_loop_factories


@pytest_asyncio.fixture(autouse=True)
async def closed_dispatchers() -> AsyncIterator[None]:
    """Drop what a test leaves queued; the loop cancels what runs, and each end would start a successor."""
    made: list[dispatcher.Dispatcher] = []
    original = dispatcher.Dispatcher.__init__

    def remember(self: dispatcher.Dispatcher, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        made.append(self)

    dispatcher.Dispatcher.__init__ = remember  # type: ignore[method-assign]
    yield
    dispatcher.Dispatcher.__init__ = original  # type: ignore[method-assign]
    for one in made:
        one.forget_waiting()


__all__ = ["closed_dispatchers", "pytest_asyncio_loop_factories"]
