"""The order of the stack's tests: random, but for those that stop a service."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that stop a service last: a new process has forgotten what its panels should show."""
    items.sort(key=lambda item: "told_to_stop" in item.name)
