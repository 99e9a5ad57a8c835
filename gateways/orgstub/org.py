"""The stub's state: records, sessions, knobs, counters; shared by its handlers, on one event loop."""

import random
from collections.abc import Callable

from aiohttp import web

from gateways.orgstub.knobs import Knobs
from gateways.orgstub.oauth import App, Sessions
from gateways.orgstub.records import Record, Records

_SEED = 20261128


class Org:
    """One org.

    Args:
        app: who may log in.
        knobs: at its start.
        on_created: called with every new record, as a trigger is.
    """

    def __init__(
        self, app: App, knobs: Knobs | None = None, on_created: Callable[[Record], None] | None = None
    ) -> None:
        self._app, self._start_knobs = app, knobs or Knobs()
        self._faults_left: int | None = None
        self._on_created = on_created
        self.reset()

    def reset(self) -> None:
        """Become a new org; the ids of its records are those of the old one, in their order."""
        self.records = Records()
        self.sessions = Sessions(self._app)
        self.calls = 0
        self.dice = random.Random(_SEED)  # noqa: S311 - faults of a stub, the same in every run
        self.turn(self._start_knobs)

    def turn(self, knobs: Knobs) -> None:
        """Set the knobs; failures count anew."""
        self.knobs = knobs
        self._faults_left = knobs.fault_calls

    def note_created(self, record: Record) -> None:
        """Run the trigger."""
        if self._on_created is not None:
            self._on_created(record)

    def next_fault(self, *kinds: str) -> str:
        """Return how this call is to fail, when it is one of these kinds; empty when not, or no longer."""
        if self.knobs.fault not in kinds or self._faults_left == 0:
            return ""
        if self._faults_left is not None:
            self._faults_left -= 1
        return self.knobs.fault


ORG = web.AppKey("org", Org)
