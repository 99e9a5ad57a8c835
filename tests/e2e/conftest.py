"""Fixtures of the whole programs' tests."""

from collections.abc import Iterator

import pytest

from tests.gateways.cli.marked import new_mark, pids_with
from tests.support import eventually


@pytest.fixture
def mark() -> Iterator[str]:
    """Give a mark that every process of a program inherits; none is left at the end."""
    made = new_mark()
    yield made
    eventually(lambda: not pids_with(made), 15)
