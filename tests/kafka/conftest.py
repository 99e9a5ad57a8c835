"""Lets the programs of these tests be forked from one that has imported what they need; see tests/nursery.py."""

from collections.abc import Iterator

import pytest

from tests.nursery import Nursery
from tests.support import ChildProcess


@pytest.fixture(scope="package", autouse=True)
def _forked(nursery: Nursery) -> Iterator[None]:
    """Do so before the fixtures of a module, which start programs as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChildProcess, "nursery", nursery)
        yield
