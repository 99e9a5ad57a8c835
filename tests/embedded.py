"""The embedded broker for tests: `pytest_plugins = ("tests.embedded",)` gives the fixture `embedded_broker`."""

from collections.abc import Iterator

import pytest

from producers.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """Give the session's embedded broker; use topic names that no other test has."""
    with EmbeddedBroker() as broker:
        yield broker
