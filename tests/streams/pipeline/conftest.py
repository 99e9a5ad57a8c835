"""Every async test of this folder runs on a virtual clock, deadlines included."""

from tests.streams.virtual_clock import pytest_asyncio_loop_factories, virtual_dates

__all__ = ["pytest_asyncio_loop_factories", "virtual_dates"]
