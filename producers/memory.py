"""The producer's in-memory twin: same contract, same suite, faults on demand; for tests and for trying things out."""

import asyncio
import itertools
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from contracts.codec import Record
from contracts.errors import LogUnavailable, PenstockError
from contracts.settings import ProducerSettings
from producers.base import Ack, Delivered, Place
from producers.window import CLOSED, Waiting, Window


class Stored(NamedTuple):
    """A record on the in-memory log."""

    record: Record
    position: Delivered


class MemoryProducer:
    """Keeps records in a list.

    Args:
        producer: the limits.
        partitions: of every topic.
        stall_after_s: as KafkaProducer's.
        clock: monotonic seconds.

    Attributes:
        stored: everything produced, in the order it reached the log.
    """

    def __init__(
        self,
        producer: ProducerSettings | None = None,
        *,
        partitions: int = 4,
        stall_after_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._window = Window(producer or ProducerSettings(), stall_after_s, clock)
        self._partitions = partitions
        self._next_offset: dict[tuple[str, int], int] = defaultdict(int)
        self._unkeyed = itertools.cycle(range(partitions))
        self._failures: list[PenstockError] = []
        self._held: list[Waiting] = []
        self._is_holding = False
        self._is_reported_full = False
        self._is_open = False
        self._unreachable = ""
        self.stored: list[Stored] = []

    async def start(self) -> None:
        """Begin serving."""
        self._is_open = True

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Close; records whose ack is still held after `timeout_s` fail."""
        self._is_open = False
        await self._window.drained(timeout_s)
        self._held.clear()
        self._window.fail_all(LogUnavailable(CLOSED))

    async def produce(self, record: Record) -> Delivered:
        """Append the record.

        Raises:
            Busy: the byte limit is reached.
            TooLarge: the record is above the limit.
            LogUnavailable: not open, set unreachable, no such partition, asked for by `fail_next`, or nothing is
                confirmed at present.
        """
        ack: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        self.post(record, ack)
        try:
            return await ack
        finally:
            # An error names this frame by its traceback, and the ack names the error: a cycle that holds the record.
            del ack

    def post(self, record: Record, ack: Ack) -> None:
        """Append the record; the future gets where it lies, or an error.

        Raises:
            Busy: the byte limit is reached.
            TooLarge: the record is above the limit.
            LogUnavailable: not open, or nothing is confirmed at present.
        """
        if not self._is_open:
            message = "the producer is not open"
            raise LogUnavailable(message)
        waiting = self._window.admit(record, ack)
        if self._failures:
            waiting.fail(self._failures.pop(0))
        elif self._unreachable:
            waiting.fail(LogUnavailable(self._unreachable))
        elif record.partition is not None and not 0 <= record.partition < self._partitions:
            waiting.fail(LogUnavailable(f"topic {record.topic} has no partition {record.partition}"))
        elif self._is_holding:
            self._held.append(waiting)
        else:
            self._store(waiting)

    @property
    def records(self) -> list[Record]:
        """Return the records alone, in order."""
        return [stored.record for stored in self.stored]

    @property
    def buffered_bytes(self) -> int:
        """Return bytes of records not confirmed yet."""
        return self._window.buffered_bytes

    @property
    def is_full(self) -> bool:
        """Tell whether the buffer is above 80 % of its limit, or was said to be."""
        return self._is_reported_full or self._window.is_full

    @property
    def is_stalled(self) -> bool:
        """Tell whether nothing is confirmed any more."""
        return self._window.stalls.is_stalled

    def silent(self, after_s: float) -> frozenset[Place]:
        """Return where a record has waited for so long while none of its topic was confirmed: topic and partition."""
        return self._window.silent(after_s)

    def tick(self) -> None:
        """Notice the time, as a real client does by itself."""
        self._window.stalls.look()

    async def probe(self, timeout_s: float) -> None:  # noqa: ARG002 - the protocol's signature
        """Answer at once.

        Raises:
            LogUnavailable: not open, or set unreachable.
        """
        if self._unreachable or not self._is_open:
            message = self._unreachable or "the producer is not open"
            raise LogUnavailable(message)

    def fail_next(self, *errors: PenstockError) -> None:
        """Let the next records fail, one with each error; nothing of them reaches the log."""
        self._failures.extend(errors)

    def set_unreachable(self, reason: str = "Kafka does not answer") -> None:
        """Let every record and probe fail; an empty reason ends it."""
        self._unreachable = reason

    def set_full(self, *, is_full: bool = True) -> None:
        """Report a full buffer, whatever is in it."""
        self._is_reported_full = is_full

    def hold_acks(self) -> None:
        """Keep the following records waiting until `release_acks`."""
        self._is_holding = True

    def release_acks(self) -> None:
        """Confirm what waits, in order, and hold no longer."""
        self._is_holding = False
        held, self._held = self._held, []
        for waiting in held:
            self._store(waiting)

    def _store(self, waiting: Waiting) -> None:
        record = waiting.record
        partition = self._partition_of(record)
        offset = self._next_offset[record.topic, partition]
        self._next_offset[record.topic, partition] += 1
        self.stored.append(Stored(record, Delivered(record.topic, partition, offset, waiting.timestamp_ms)))
        waiting.confirm(partition, offset, waiting.timestamp_ms)

    def _partition_of(self, record: Record) -> int:
        if record.partition is not None:
            return record.partition
        if record.key is None:
            return next(self._unkeyed)
        return zlib.crc32(record.key) % self._partitions
