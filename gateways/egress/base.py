"""The protocol of the doors out: what delivers terminal records to whoever waits outside.

A door knows its destination and nothing of Kafka, retries or commits: the runner hands it items, and it says for each
one what became of it. Every door passes the suite in tests/suites/egress.py.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from contracts.codec import SOURCE_APP, Position, RecordHeaders, encodable
from contracts.payloads import EndpointState
from contracts.repetition import ANSWERED, REPLAY
from gateways.egress.outcomes import Outcome

Order = Literal["key", "partition", "none"]
Scope = Literal["item", "destination", "operator"]


class Item(NamedTuple):
    """One terminal record to deliver.

    Attributes:
        outcome: the decoded record.
        event_type: type of the event that was answered.
        delivery: how its caller wanted the answer; empty when it did not say.
        route: name of the route that answered it; empty when none did.
        key: the event's partition key.
        headers: of the record on the result topic, untouched.
        position: of the same record, also for a retry: it never changes.
        attempt: 1-based.
    """

    outcome: Outcome
    event_type: str
    delivery: str
    route: str
    key: bytes | None
    headers: RecordHeaders
    position: Position
    attempt: int = 1

    def attribute(self, name: str) -> str:
        """Return a CloudEvents attribute of the record, such as `subject`; empty when it has none."""
        wanted = f"ce_{name}"
        return next(((raw or b"").decode(errors="replace") for header, raw in self.headers if header == wanted), "")

    @property
    def delivery_id(self) -> str:
        """Return by what receivers recognise repeats: the result's id, and behind it 16 digits of which outcome it is.

        They are the same for every attempt, wherever the record lies by then, for a duplicate of a worker's crash, and
        for a second record of the same event. Another outcome under one result id has others: of another application,
        API key or body, of an event that was sent again on purpose, put back from the dead letters, or done again after
        a reset of offsets; a result where the other is none, such as one that has expired; and each record of a source
        of which no repeats are known (neither `penstock-dedup` nor the id of a queue's message).
        """
        outcome, found = self.outcome, dict(self.headers)
        marks = (found.get(name) for name in (SOURCE_APP, ANSWERED, REPLAY))
        facts = (outcome.owner, *marks, outcome.redrives, self.status == "succeeded")
        return f"{outcome.result_id}-{hashlib.sha256(encodable(repr(facts)).encode()).hexdigest()[:16]}"

    @property
    def status(self) -> str:
        """Return `succeeded`, `dead_letter` or `expired`."""
        return self.outcome.status

    @property
    def size_bytes(self) -> int:
        """Return what the item counts against limits of bytes."""
        return len(self.outcome.value) + sum(len(name) + len(raw or b"") for name, raw in self.headers)


@dataclass(frozen=True)
class Delivered:
    """The destination has confirmed the item.

    Attributes:
        through: offset up to which everything of the item's partition is confirmed with it, which is not handed to the
            door again, nor after a restart; -1 = nothing else. For doors with order `partition`.
    """

    through: int = -1


@dataclass(frozen=True)
class Later:
    """Not delivered, and trying again may help.

    Attributes:
        reason: bounded slug, a metric label.
        message: for the operator; no secret, no payload.
        retry_after_s: wait asked for by the destination; None when it did not say.
        scope: whom the failure is about. `item`: this one only (a locked row). `destination`: it throttles, is slow or
            down; counts for its breaker. `operator`: credentials, permissions, a missing queue: nothing can succeed
            until somebody acts, so the breaker opens at once and no attempt is used up.
    """

    reason: str
    message: str = ""
    retry_after_s: float | None = None
    scope: Scope = "destination"


@dataclass(frozen=True)
class Refused:
    """The destination will never take this item: it goes to the undelivered topic, with reason and message."""

    reason: str
    message: str = ""


Verdict = Delivered | Later | Refused
DELIVERED = Delivered()


@dataclass(frozen=True)
class Shape:
    """How a door wants its items.

    Attributes:
        max_batch: items of one `deliver`, at most.
        max_batch_bytes: their `size_bytes` together, at most; an item above it comes alone.
        linger_s: how long a batch that is not full waits for company.
        order: `key`: an item is handed over when all earlier ones of its key are delivered or refused, so never two of
            one key in one batch; failed ones wait in the runner and hold back their key alone. `partition`: batches are
            runs of one partition in offset order, one at a time. `none`: failed ones wait on the delay topics, and are
            overtaken.
        many_destinations: whether items go to different places. Each has its own breaker and its own share of the
            deliveries at a time; items of one that is down wait on the delay topics. With one place, intake pauses.
        is_exact: repeats could not be recognised by whoever receives them. Before every delivery the runner makes sure
            that the topic was not made anew since its records were read, which would read them once more.
    """

    max_batch: int = 1
    max_batch_bytes: int = 2**20
    linger_s: float = 0.0
    order: Order = "none"
    many_destinations: bool = False
    is_exact: bool = False


class PlainDoor:
    """What most doors answer: everything is for them, there is one place, and any items may go together."""

    def takes(self, item: Item) -> bool:  # noqa: ARG002 - the protocol's
        """Take every item."""
        return True

    def destination(self, item: Item) -> str:  # noqa: ARG002 - the protocol's
        """Name the one place."""
        return ""

    def splits(self, first: Item, item: Item) -> bool:  # noqa: ARG002 - the protocol's
        """Let any two items go together."""
        return False


@runtime_checkable
class Door(Protocol):
    """Delivers items to one kind of destination; the constructor does no network."""

    @property
    def shape(self) -> Shape:
        """Return how this door wants its items; does not change."""
        ...

    async def start(self) -> None:
        """Make ready; a destination that is away is no error.

        Raises:
            ConfigError: the settings cannot work.
        """
        ...

    async def aclose(self) -> None:
        """Release everything, also while a `deliver` that was cancelled still runs in a thread; safe to call twice."""
        ...

    def takes(self, item: Item) -> bool:
        """Tell whether an item that the configuration matches is for this door at all; others are passed over."""
        ...

    def destination(self, item: Item) -> str:
        """Return where an item goes, as short text for logs; the same for all where there is one place."""
        ...

    def splits(self, first: Item, item: Item) -> bool:
        """Tell whether `item` may not be in one batch with `first`, the batch's first item."""
        ...

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Deliver 1 to `shape.max_batch` items of one destination; return one verdict per item, in their order.

        Called concurrently, up to the door's `max_in_flight`; does not block the event loop, ends within the door's
        `timeout_s` or is cancelled. Repeats happen after a crash: send `delivery_id` along. Does not retry.
        An exception counts as Later("door_failed") for every item.
        """
        ...


class Board(Protocol):
    """Where endpoints' states are kept, and what other processes and operators have written there."""

    def get(self, name: str) -> EndpointState | None:
        """Return the newest state of an endpoint; None when nobody has written one. Does not block."""
        ...

    async def put(self, state: EndpointState) -> None:
        """Write a state; `get` returns it from now on, also when writing it fails.

        Raises:
            LogUnavailable: it is not kept.
        """
        ...
