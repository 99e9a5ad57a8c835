"""The fake provider."""

from collections.abc import AsyncIterator

import pytest

from tests.streams.providers.labs import FakeLab
from tests.suites.provider import ProviderSuite


@pytest.fixture
async def lab() -> AsyncIterator[FakeLab]:
    lab = FakeLab()
    await lab.provider.start()
    yield lab
    await lab.provider.aclose()


class TestFake(ProviderSuite):
    """It keeps the protocol."""
