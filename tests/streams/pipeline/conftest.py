"""Every async test of this folder runs on a virtual clock, deadlines included; with tasks and without."""

import pytest

from tests.streams.pipeline.support import Bench
from tests.streams.virtual_clock import pytest_asyncio_loop_factories, virtual_dates

__all__ = ["pytest_asyncio_loop_factories", "virtual_dates"]


@pytest.fixture(autouse=True, params=["task", "straight"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the calls of ordinary events made in tasks, or without."""
    monkeypatch.setattr(Bench, "is_straight", request.param == "straight")
