"""Every async test of this folder runs on a virtual clock."""

from tests.streams.virtual_clock import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
