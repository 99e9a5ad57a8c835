"""The model server `penstock fm-stub` as tests see it: its knobs, and what it has served.

Blocking: each request up to 10 s.
"""

import json
from typing import Any

from tests.support import ask


class Stub:
    """A running stub, by its address.

    Attributes:
        url: without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def http(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON answer of one of the stub's own doors; None when it has no body."""
        raw = None if body is None else json.dumps(body).encode()
        answer = ask(self.url + path, raw, method=method)
        return json.loads(answer) if answer else None

    def set_knobs(self, **knobs: Any) -> None:
        """Replace the knobs."""
        self.http("PUT", "/_stub/knobs", knobs)

    def stats(self) -> dict[str, Any]:
        """Return the statistics."""
        found: dict[str, Any] = self.http("GET", "/_stub/stats")
        return found

    @property
    def calls(self) -> int:
        """Return how many calls it has served."""
        return int(self.stats()["calls"])
