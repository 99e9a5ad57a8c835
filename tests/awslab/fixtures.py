"""The fixture `aws`: moto's server for one module; queues with names of their own for each test."""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.awslab.server import AwsLab


@pytest.fixture(scope="session")
def aws_server() -> "Iterator[AwsLab]":
    """Give the session's server."""
    # moto takes a second to import.
    from tests.awslab.server import AwsLab

    lab = AwsLab()
    lab.start()
    yield lab
    lab.close()


@pytest.fixture
def aws(aws_server: "AwsLab", monkeypatch: pytest.MonkeyPatch) -> "Iterator[AwsLab]":
    """Give the server without faults and counts, and credentials in the environment."""
    from tests.awslab.server import CREDENTIALS

    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    aws_server.calls.clear()
    yield aws_server
    aws_server.faults.clear()


def unique(name: str) -> str:
    """Return a name that no other test has."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{uuid.uuid4().hex[:8]}{dot}{suffix}"
