"""The protocol of everything that puts records on topics; the Kafka producer and its in-memory twin share one suite."""

from typing import Any, Protocol, runtime_checkable

from contracts.codec import Position, Record
from contracts.errors import LogUnavailable

# Where a confirmed record lies; the timestamp is the one the log keeps, milliseconds since 1970.
Delivered = Position
# Topic and partition of a record; None = the client chooses by its key.
Place = tuple[str, int | None]


class Ack(Protocol):
    """Gets where a record lies, or what `produce` raises; a future is one."""

    def done(self) -> bool:
        """Tell whether nobody waits any more."""
        ...

    def set_result(self, result: Delivered, /) -> None:
        """Take where the record lies."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """Take why it is not known to be on the log."""
        ...


class Forbidden(LogUnavailable):
    """Raise when a topic may not be written to: the record is not on the log, and comes through once that is mended."""


@runtime_checkable
class Producer(Protocol):
    """Produces records, safe for concurrent use by the tasks of one event loop; the constructor does no network."""

    async def start(self) -> None:
        """Begin serving; returns at once also while the brokers are away."""
        ...

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Flush what is buffered, at most `timeout_s`, then close; what was not confirmed fails with LogUnavailable."""
        ...

    async def produce(self, record: Record) -> Delivered:
        """Return when the broker has confirmed the record (acks=all); does not block the loop.

        Records of one partition keep the order of the calls. Cancelling the wait does not take the record back.

        Raises:
            Busy: the byte limit is reached; nothing was buffered.
            TooLarge: the record is above the limit; nothing was buffered.
            Forbidden: the topic may not be written to.
            LogUnavailable: not confirmed in time or refused; it may or may not be on the log. At once, and nothing was
                buffered, while nothing is confirmed, where the producer was told to notice that.
        """
        ...

    def post(self, record: Record, ack: Ack) -> None:
        """Do as `produce`, without a coroutine: for who has many at once, and who waits for the ack by itself.

        Raises:
            Busy, TooLarge, LogUnavailable: nothing was buffered, and the ack is as it was.
        """
        ...

    @property
    def buffered_bytes(self) -> int:
        """Return bytes of records not confirmed yet, by our own count: key, value, headers and 64 per record."""
        ...

    @property
    def is_full(self) -> bool:
        """Tell whether the buffer is above its readiness mark (80 % of the limit)."""
        ...

    @property
    def is_stalled(self) -> bool:
        """Tell whether nothing is confirmed any more, so that records fail at once."""
        ...

    def silent(self, after_s: float) -> frozenset[Place]:
        """Return where a record has waited for so long while none of its topic was confirmed: topic and partition."""
        ...

    async def probe(self, timeout_s: float) -> None:
        """Ask the brokers for metadata.

        Raises:
            LogUnavailable: no answer in time.
        """
        ...
