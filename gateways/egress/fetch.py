"""Fetches single records by their position.

Reads: result topics. Blocking: for use by as many threads as there are consumers.
"""

import time
from queue import Empty, LifoQueue
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.errors import LogUnavailable
from gateways.egress.outcomes import Place
from gateways.egress.reading import partitions_of, translated_errors

_POLL_S = 0.25
_CALL_TIMEOUT_S = 2.0


class Fetcher:
    """Keeps consumers that have found their brokers: a new one would ask for everything again.

    Args:
        config: of a consumer.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        # One record is wanted; what lies behind it need not be brought along.
        small = {"fetch.message.max.bytes": 32 * 1024, "queued.min.messages": 1, "queued.max.messages.kbytes": 2048}
        # What the last fetch brought along would hold up the next one of that partition by a second (measured).
        small["fetch.queue.backoff.ms"] = 1
        self._config = config | small | {"client.id": "penstock-gateway-fetch", "auto.offset.reset": "error"}
        self._idle: LifoQueue[Consumer] = LifoQueue()
        self._is_closed = False

    def fetch(self, place: Place, timeout_s: float) -> KafkaMessage | None:
        """Return the record; None when there is none any more.

        Raises:
            LogUnavailable: Kafka cannot be read, or did not answer in time.
        """
        try:
            consumer = self._idle.get_nowait()
        except Empty:
            with translated_errors():
                consumer = Consumer(self._config)
        try:
            with translated_errors():
                consumer.assign([TopicPartition(*place)])
                found = _read(consumer, place, time.monotonic() + timeout_s)
                consumer.unassign()
        except BaseException:
            consumer.close()
            raise
        self._idle.put(consumer)
        if self._is_closed:
            # What was put back since nobody else would close.
            self.close()
        return found

    def close(self) -> None:
        """Close the idle consumers, and those in use once they are put back."""
        self._is_closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return


def _read(consumer: Consumer, place: Place, give_up_s: float) -> KafkaMessage | None:
    while time.monotonic() < give_up_s:
        message = consumer.poll(_POLL_S)
        if message is None:
            continue
        error = message.error()
        if error is None:
            return message if message.offset() == place.offset else None
        if error.code() in _NOT_THERE:
            return None
    # The client says nothing of brokers that are away, and for long nothing of a topic that was deleted.
    if place.partition not in partitions_of(consumer, place.topic, _CALL_TIMEOUT_S):
        return None
    text = f"{place.topic} [{place.partition}] at {place.offset}: no answer in time"
    raise LogUnavailable(text, retry_after_s=2.0)


_NOT_THERE = frozenset(
    {
        KafkaError._PARTITION_EOF,  # noqa: SLF001 - the client's public constants
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
