"""What the engine is given to do with items, and how much of it at a time."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streams.engine.dispatcher import Run, Slot
from streams.engine.item import Item, ResultRef
from streams.engine.tenure import Tenure

_TOGETHER = 32


@dataclass(frozen=True)
class Limits:
    """How much the engine takes.

    Attributes:
        in_flight: model calls at a time.
        ready_keys: per lane, items that could run at once and have not started.
        held_events, held_bytes: taken and not finished, all lanes together; each lane has a part of its own.
        uncommitted: offsets a partition may run ahead of its oldest unfinished one.
        tenant_weights: shares of tenants within a lane; 1 for those not named.
    """

    in_flight: int
    ready_keys: int
    held_events: int
    held_bytes: int
    uncommitted: int
    tenant_weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def together(self) -> int:
        """Return for how many a paused intake looks and goes on at a time, while as many are ready.

        One by one they cost more (docs/adr/0028), but no more than one round of calls: who is new waits for them.
        """
        return min(_TOGETHER, self.in_flight)


class Work(Protocol):
    """What is done with an item."""

    async def __call__(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef | None:
        """Return where the confirmed terminal record lies.

        Raises:
            TenureLostError: the partitions were given up; nothing was produced for the item.
            Exception: anything else ends the worker with nothing committed.
        """
        ...


@dataclass(frozen=True)
class Way:
    """What happens to an item that has begun without a task.

    Attributes:
        ended: told where its terminal record lies.
        goes_on: gives the item a task after all, for what is left of its work.
        crash: told a bug, which ends the worker.
    """

    ended: Callable[[Item, Slot, Tenure, ResultRef], None]
    goes_on: Callable[[Item, Slot, Tenure, Callable[[], Awaitable[ResultRef | None]]], None]
    crash: Callable[[BaseException], None]


class Straight(Protocol):
    """Does the same work without a task where nothing out of the ordinary happens; see ADR 0030."""

    def follow(self, way: Way) -> None:
        """Take what to tell of items; called once, before any begins."""
        ...

    def begin(self, starts: Sequence[tuple[Item, Slot]], tenure: Tenure) -> Sequence[Run | None]:
        """Begin items with their slots, under a good lease; None for one that needs a task. Must not raise."""
        ...
