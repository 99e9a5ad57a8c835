"""One stub in a process of its own for the tests of this folder; each test finds fresh knobs and counters."""

from collections.abc import Iterator

import pytest

from tests.stub import Stub
from tests.support import ChildProcess


@pytest.fixture(scope="session")
def stub_process() -> Iterator[Stub]:
    with ChildProcess("streams", "fm-stub", "--port", "0") as process:
        yield Stub(process.wait_for(r"^listening on (http://\S+)$")[1])


@pytest.fixture
def stub(stub_process: Stub) -> Stub:
    stub_process.set_knobs()
    stub_process.http("DELETE", "/_stub/stats")
    return stub_process
