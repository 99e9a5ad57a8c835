"""The messages a door holds: received, hidden from others, and not deleted yet.

SQS delivers at least once: a message may come again while we still hold it (its visibility ran out), or after the
broker has confirmed its event (its deletion failed). Neither makes a second event as long as this process lives.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateways.ingress.base import Message

# SQS ends a message's visibility 12 h after its receipt, whatever is asked for (Amazon SQS quotas, checked 2026-11).
LONGEST_HOLD_S = 11.5 * 3600
_REMEMBERED = 10_000


@dataclass(eq=False)
class Held:
    """One message.

    Attributes:
        receipt: of its newest delivery; older ones stop working.
        received_s, extended_s: monotonic seconds of its receipt and of its last extension.
        is_deletable: the broker has confirmed its event.
    """

    message: Message
    receipt: str
    received_s: float
    extended_s: float
    is_deletable: bool = False


class Holdings:
    """What one door holds, bounded in number, and what it has settled lately.

    Args:
        limit: of the messages held.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, Held] = {}
        self._reserved = 0
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    async def reserve(self, wanted: int) -> int:
        """Return how many messages may be fetched, at least one, as soon as there is room; `release` gives it back."""
        while (room := self._limit - len(self._held) - self._reserved) < 1:
            self._changed.clear()
            await self._changed.wait()
        taken = min(wanted, room)
        self._reserved += taken
        return taken

    def release(self, count: int) -> None:
        """Give back what `reserve` took, once the fetched messages have been added."""
        self._reserved -= count
        self._changed.set()

    def add(self, message: Message, receipt: str, now_s: float) -> Held | None:
        """Take a message in; None when it is held already, and now has another receipt."""
        held = self._held.get(message.id)
        if held is not None:
            held.receipt = receipt
            held.extended_s = now_s
            return None
        held = Held(message, receipt, now_s, now_s, is_deletable=message.id in self._settled)
        self._held[message.id] = held
        return held

    def note_settled(self, held: Held) -> None:
        """Remember that the event of a message is on the log, in case the message comes back."""
        held.is_deletable = True
        self._settled[held.message.id] = None
        self._settled.move_to_end(held.message.id)
        while len(self._settled) > _REMEMBERED:
            self._settled.popitem(last=False)

    def forget(self, held: Held) -> None:
        """Let go of a message: it is deleted, or the queue's again."""
        if self._held.get(held.message.id) is held:
            del self._held[held.message.id]
            self._changed.set()

    def to_extend(self, now_s: float, after_s: float) -> list[Held]:
        """Return the messages whose last extension is at least so long ago; those held too long are given up."""
        for held in self:
            if now_s - held.received_s > LONGEST_HOLD_S:
                self.forget(held)
        return [held for held in self._held.values() if now_s - held.extended_s >= after_s]


def batches(items: Iterable[Held], size: int) -> Iterator[list[Held]]:
    """Yield the items in lists of at most `size`."""
    batch: list[Held] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
