"""Fixtures for the doors: one emulator a run, one front a test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.awslab.front import Front
from tests.awslab.moto import Moto


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    """Give moto's server; tests use names of their own."""
    server = Moto()
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def front(moto: Moto) -> AsyncIterator[Front]:
    """Give a front of it that can fail."""
    front = Front(moto.url)
    await front.start()
    yield front
    await front.stop()
