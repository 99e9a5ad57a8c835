"""Fixtures of moto's server, loaded by tests/conftest.py: `moto` and `s3` as it is, `aws` with a layer for faults.

One server of each kind a session, since moto takes a second to import and its clients as long to load.
"""

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.awslab.moto import Moto
    from tests.awslab.server import AwsLab


@pytest.fixture(scope="session")
def moto() -> "Iterator[Moto]":
    """Give the session's server; tests use names of their own."""
    from tests.awslab.moto import Moto

    server = Moto()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(moto: "Moto", monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a client of an S3 server without buckets; credentials are in the environment, also of programs."""
    from tests.awslab.moto import KEYS, REGION

    for name, value in {**KEYS, "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    yield moto.client("s3")
    moto.reset()


@pytest.fixture(scope="session")
def aws_server() -> "Iterator[AwsLab]":
    """Give the session's server."""
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
