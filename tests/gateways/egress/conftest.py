"""Fixtures for the doors: one front a test."""

from collections.abc import AsyncIterator

import pytest

from tests.awslab.front import Front
from tests.awslab.moto import Moto


@pytest.fixture
async def front(moto: Moto) -> AsyncIterator[Front]:
    """Give a front of moto's server that can fail."""
    front = Front(moto.url)
    await front.start()
    yield front
    await front.stop()
