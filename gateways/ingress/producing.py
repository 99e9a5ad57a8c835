"""Puts an accepted event on its topic and waits for the broker's ack, as long as the caller can wait."""

from contracts.codec import Position, Record
from contracts.errors import LogUnavailable
from gateways.ingress.deadlines import Deadline
from producers.base import Producer

_RETRY_AFTER_S = 5.0


async def produce(producer: Producer, record: Record, timeout_s: float) -> Position:
    """Return where the record lies, once it is durable.

    Raises:
        Busy: the producer's buffer is full.
        TooLarge: the record is above the limit.
        LogUnavailable: not confirmed in time; it may still reach the log, and sending it again is right.
    """
    try:
        with Deadline(timeout_s):
            return await producer.produce(record)
    except TimeoutError as error:
        message = f"no ack within {timeout_s:g} s"
        raise LogUnavailable(message, retry_after_s=_RETRY_AFTER_S) from error
