"""The embedded provider."""

from collections.abc import AsyncIterator

import pytest

from tests.streams.providers.labs import EmbeddedLab
from tests.suites.provider import ProviderSuite


@pytest.fixture
async def lab() -> AsyncIterator[EmbeddedLab]:
    lab = EmbeddedLab()
    await lab.provider.start()
    yield lab
    await lab.provider.aclose()


class TestEmbedded(ProviderSuite):
    """It keeps the protocol."""
