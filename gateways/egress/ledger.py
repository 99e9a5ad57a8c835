"""What of one partition is finished, and so what may be committed; one per assigned partition, thrown away with it.

And what is taken of it, in hand.
"""

from gateways.egress.base import Item

UnitId = tuple[object, ...]


class Ledger:
    """Offsets taken from one partition.

    Args:
        topic, partition: which.
        log_id: Kafka's id of the topic, another one when it was deleted and made anew; empty when not known. It goes
            with every commit.

    Attributes:
        next_offset: behind the last record looked at; None before the first.
        through: everything up to this offset is confirmed by the destination, whatever was read of it; -1 = nothing.
        is_given_up: the partition belongs to somebody else now, and nothing of it may be committed any more.
    """

    def __init__(self, topic: str, partition: int, log_id: str = "") -> None:
        self.topic = topic
        self.partition = partition
        self.log_id = log_id
        self.next_offset: int | None = None
        self.through = -1
        self.is_given_up = False
        self._committed: int | None = None
        # In the order of the log: a dictionary keeps it, and finishing any of them costs the same.
        self._unfinished: dict[int, int] = {}

    def take(self, offset: int, timestamp_ms: int) -> None:
        """Note a record that is to be delivered."""
        self._unfinished[offset] = timestamp_ms
        self.next_offset = offset + 1

    def skip(self, offset: int) -> None:
        """Note a record that is none of ours."""
        self.next_offset = offset + 1

    def finish(self, offset: int) -> None:
        """Note that a record is delivered, or safe on another topic."""
        self._unfinished.pop(offset, None)

    @property
    def unfinished(self) -> int:
        """Return how many records are taken and not finished."""
        return len(self._unfinished)

    @property
    def span(self) -> int:
        """Return how far the reading is ahead of the oldest unfinished record."""
        if not self._unfinished or self.next_offset is None:
            return 0
        return self.next_offset - next(iter(self._unfinished))

    @property
    def oldest_ms(self) -> int | None:
        """Return the timestamp of the oldest unfinished record."""
        return next(iter(self._unfinished.values()), None)

    def to_commit(self) -> int | None:
        """Return the offset to commit, the lowest unfinished one; None when it is committed already."""
        offset = next(iter(self._unfinished), self.next_offset)
        if offset is not None:
            offset = max(offset, self.through + 1)
        return None if offset == self._committed else offset

    def committed(self, offset: int) -> None:
        """Note that the broker has an offset."""
        self._committed = offset


class Entry:
    """One item in hand, and the record it came with: the item's own, or one of a delay topic."""

    __slots__ = ("destination", "first_at_s", "item", "ledger", "offset", "queued_at_s", "size_bytes", "unit_id")

    def __init__(self, item: Item, ledger: Ledger, offset: int, first_at_s: float) -> None:
        self.item = item
        self.ledger = ledger
        self.offset = offset
        # Unix time of the first attempt.
        self.first_at_s = first_at_s
        self.size_bytes = item.size_bytes
        self.queued_at_s = 0.0
        self.destination = ""
        self.unit_id: UnitId = ()

    @property
    def is_confirmed(self) -> bool:
        """Tell whether the destination has confirmed it together with others of its partition."""
        return self._is_own and self.offset <= self.ledger.through

    def confirm(self, through: int) -> None:
        """Note that the destination has confirmed everything of its partition up to an offset."""
        if self._is_own:
            self.ledger.through = max(self.ledger.through, through)

    @property
    def _is_own(self) -> bool:
        # What comes over a delay topic has been given up in its own partition.
        return self.ledger.topic == self.item.position.topic
