"""Records handed to a client and not confirmed yet: their bytes, their waiters, their metrics."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from itertools import takewhile

import msgspec

from contracts.codec import Record, RecordHeaders
from contracts.errors import Busy, PenstockError, TooLarge
from contracts.metrics import PRODUCE_DURATION, PRODUCED
from contracts.settings import ProducerSettings
from contracts.tallies import Tally
from producers.base import Ack, Delivered, Place
from producers.stalls import Flow, Stalls

_RECORD_BYTES = 64
# Above it readiness flips, so that a load balancer turns away before senders are refused.
_READY_SHARE = 0.8
_BUSY_RETRY_S = 1.0
_NOWHERE: frozenset[Place] = frozenset()
produced = Tally(PRODUCED, PRODUCE_DURATION)
CLOSED = "the producer closed before the record was confirmed; it may be on the log"


def record_bytes(record: Record) -> int:
    """Return what a record counts for: key, value, headers and 64."""
    return size_bytes_of(record.key, record.value, record.headers)


def size_bytes_of(key: bytes | None, value: bytes | None, headers: RecordHeaders) -> int:
    """Return what a record of these parts counts for."""
    size_bytes = _RECORD_BYTES + len(key or b"") + len(value or b"")
    if not headers:
        return size_bytes
    try:
        # This runs twice per event: joined, they are counted in half the time.
        names, values = zip(*headers, strict=True)
        return size_bytes + len("".join(names)) + len(b"".join(values))
    except TypeError:
        # Foreign records may have headers without a value.
        return size_bytes + sum(len(name) + len(raw or b"") for name, raw in headers)


class Waiting(msgspec.Struct, eq=False):
    """One record on its way; ended exactly once, by `confirm` or `fail`, later calls change nothing."""

    _window: "Window"
    record: Record
    future: Ack
    size_bytes: int
    flow: Flow
    started_s: float
    timestamp_ms: int

    def confirm(self, partition: int, offset: int, timestamp_ms: int) -> None:
        """End the wait with a position."""
        if self._window.remove(self):
            window, now_s = self._window, self._window.clock()
            produced[self.record.topic, "ok"].append(now_s - self.started_s)
            window.stalls.confirmed(self.flow, now_s)
        if not self.future.done():
            self.future.set_result(Delivered(self.record.topic, partition, offset, timestamp_ms))

    def fail(self, error: PenstockError) -> None:
        """End the wait with an error."""
        if self._window.remove(self):
            window, now_s = self._window, self._window.clock()
            produced[self.record.topic, error.reason].append(now_s - self.started_s)
            if isinstance(error, TooLarge):
                # That too is an answer of the broker's.
                window.stalls.confirmed(self.flow, now_s)
        if not self.future.done():
            self.future.set_exception(error)


class Window:
    """Everything that waits for its ack, bounded in bytes.

    Args:
        settings: the limits.
        stall_after_s: when nothing has been confirmed for so long, new records are refused; never by default.
        clock: monotonic seconds.

    Attributes:
        waiting: the records, in the order of the calls.
        stalls: whether acks come.
    """

    def __init__(
        self,
        settings: ProducerSettings,
        stall_after_s: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.stalls = Stalls(stall_after_s, clock)
        self._flows = self.stalls.flows
        self._linger_s = settings.linger_s
        self._limit_bytes = settings.max_buffer_bytes
        self._record_limit_bytes = min(settings.max_record_bytes, settings.max_buffer_bytes)
        self.waiting: dict[Waiting, None] = {}
        # Made by who waits for it.
        self._emptied: asyncio.Event | None = None
        self.buffered_bytes = 0

    def __len__(self) -> int:
        return len(self.waiting)

    @property
    def is_full(self) -> bool:
        """Tell whether the readiness mark is passed."""
        return self.buffered_bytes >= _READY_SHARE * self._limit_bytes

    def admit(self, record: Record, future: Ack) -> Waiting:
        """Take a record in; the future gets where it lies, or an error.

        Raises:
            TooLarge: it can never be taken.
            Busy: it cannot be taken now.
            LogUnavailable: it would wait for nothing.
        """
        size_bytes = size_bytes_of(record.key, record.value, record.headers)
        if size_bytes > self._record_limit_bytes:
            message = f"record of {size_bytes} bytes for topic {record.topic}, the limit is {self._record_limit_bytes}"
            raise TooLarge(message)
        if self.buffered_bytes + size_bytes > self._limit_bytes:
            message = f"producer buffer is full: {self.buffered_bytes} of {self._limit_bytes} bytes wait for their ack"
            raise Busy(message, retry_after_s=_BUSY_RETRY_S)
        now_s = self.clock()
        flow = self._flows.get(record.topic)
        if flow is not None and flow.waiting and not flow.is_stalled:
            # No call more for the usual record.
            flow.waiting += 1
        else:
            flow = self.stalls.enter(record.topic, now_s)
        stamp_ms = time.time_ns() // 1_000_000 if record.timestamp_ms is None else record.timestamp_ms
        waiting = Waiting(self, record, future, size_bytes, flow, now_s, stamp_ms)
        self.waiting[waiting] = None
        self.buffered_bytes += size_bytes
        return waiting

    def remove(self, waiting: Waiting) -> bool:
        """Let go of a record; False when it is not here any more."""
        if waiting not in self.waiting:
            return False
        del self.waiting[waiting]
        self.buffered_bytes -= waiting.size_bytes
        waiting.flow.waiting -= 1
        if self._emptied is not None and not self.waiting:
            self._emptied.set()
        return True

    def silent(self, after_s: float) -> frozenset[Place]:
        """Return where a record has waited for so long while none of its topic was confirmed: topic and partition.

        A topic that confirms anything is not silent, however slow it is, and a partition where nothing waits is not.
        What a record may wait for company in the client is not counted.
        """
        after_s += self._linger_s
        topics = {name for name, flow in self._flows.items() if flow.waiting and flow.silent_s >= after_s}
        if not topics:
            return _NOWHERE
        since_s = self.clock() - after_s
        old = takewhile(lambda waiting: waiting.started_s <= since_s, self.waiting)
        return frozenset((one.record.topic, one.record.partition) for one in old if one.record.topic in topics)

    async def drained(self, timeout_s: float) -> None:
        """Return when nothing waits any more, or after the timeout."""
        if not self.waiting:
            return
        self._emptied = self._emptied or asyncio.Event()
        self._emptied.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._emptied.wait(), timeout_s)

    def fail_all(self, error: PenstockError) -> None:
        """Fail every record, each with an error of its own: a shared one would collect all waiters' tracebacks."""
        for waiting in list(self.waiting):
            waiting.fail(type(error)(*error.args))
