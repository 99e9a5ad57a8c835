"""One stub in a process of its own for the tests of this folder; each test finds fresh knobs and counters."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ChildProcess


class Stub:
    """A running stub, by its address."""

    def __init__(self, url: str) -> None:
        self.url = url

    def http(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer of one of the stub's own doors; None when it has no body."""
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=raw, method=method)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the same
            text = answer.read()
        return json.loads(text) if text else None

    def set_knobs(self, **knobs: Any) -> None:
        """Replace the knobs."""
        self.http("PUT", "/_stub/knobs", knobs)

    def stats(self) -> dict[str, Any]:
        """Return the statistics."""
        found: dict[str, Any] = self.http("GET", "/_stub/stats")
        return found


@pytest.fixture(scope="session")
def stub_process() -> Iterator[Stub]:
    with ChildProcess("streams", "fm-stub", "--port", "0") as process:
        yield Stub(process.wait_for(r"^listening on (http://\S+)$")[1])


@pytest.fixture
def stub(stub_process: Stub) -> Stub:
    stub_process.set_knobs()
    stub_process.http("DELETE", "/_stub/stats")
    return stub_process
