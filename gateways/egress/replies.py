"""Reads the replies to this process: the copies of outcomes that workers send it.

Reads: replies. Blocking: runs in a thread of its own; no call into Kafka takes longer than 2 s.
"""

import threading
import uuid
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.envelope import REPLY_TO, ReplyAddress
from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, self_watching
from contracts.logs import logger
from gateways.egress.outcomes import Outcome, read_outcome
from gateways.egress.reading import LogIds, partitions_of, watermarks

_CALL_TIMEOUT_S = 2.0
_RETRY_S = 1.0
_POLL_S = 0.25
_MORE_RECORDS = 500
_HEADER = f"ce_{REPLY_TO}"

_GONE = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001 - the client's public constants

_log = logger("gateway")


class Replies:
    """Follows one partition of the replies topic and hands on what is meant for this process.

    The address is random per process and the partition follows from it, so instances need no coordination: two in one
    partition skip each other's records. Nothing is lost with a process, since a new one has a new address, and whoever
    waits without a reply still finds the outcome on the result topic.

    Args:
        config: of the consumer.
        topic: the replies topic.
        on_outcome: gets every outcome meant for this process, on the reader's thread.
    """

    def __init__(self, config: dict[str, Any], topic: str, on_outcome: Callable[[Outcome], None]) -> None:
        self._config = config | {"client.id": "penstock-gateway-replies"}
        self._topic = topic
        self._log_ids = LogIds(config, (topic,))
        self._on_outcome = on_outcome
        self._instance = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
        # Written by the thread, read by others: a single assignment of an immutable value.
        self._address: ReplyAddress | None = None
        self._is_warned = False

    @property
    def address(self) -> ReplyAddress | None:
        """Return where replies to this process go; None while it cannot read any (Kafka away, no such topic)."""
        return self._address

    def start(self) -> None:
        """Start the thread; returns at once also while the brokers are away."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (LogUnavailable, KafkaException) as error:
                if not self._is_warned:
                    _log.warning("replies.log_unavailable", error=str(error))
                self._is_warned = True
            except Exception:  # noqa: BLE001 - the edge of this thread: nobody above could do more than start again
                _log.exception("replies.failed")
            self._address = None
            self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        consumer = Consumer(self._config | self_watching())
        try:
            self._begin(consumer)
            while not self._stop.is_set():
                if self._log_ids.made_anew():
                    # What was sent in between is found on the result topics.
                    text = f"{self._topic} was made anew"
                    raise LogUnavailable(text)
                # One at a time wakes at the first record; a batch would wait for its time to be up.
                message = consumer.poll(_POLL_S)
                if message is not None:
                    for one in (message, *consumer.consume(_MORE_RECORDS, 0)):
                        self._take(one)
        finally:
            consumer.close()

    def _begin(self, consumer: Consumer) -> None:
        while not (partitions := partitions_of(consumer, self._topic, _CALL_TIMEOUT_S)):
            # It may be made any moment; until then outcomes are found on the result topics.
            if self._stop.wait(_RETRY_S):
                return
            # What the client says of itself is kept until it is polled, 8 KiB every 5 s.
            consumer.poll(0)
        partition = partitions[int(self._instance, 16) % len(partitions)]
        # Invariant: the place where reading starts is known before the address is given to anybody.
        _, end = watermarks(consumer, self._topic, partition, _CALL_TIMEOUT_S)
        consumer.assign([TopicPartition(self._topic, partition, end)])
        self._address = ReplyAddress(partition, self._instance)
        self._is_warned = False
        _log.info("replies.following", topic=self._topic, partition=partition)

    def _take(self, message: KafkaMessage) -> None:
        error = message.error()
        if error is not None:
            if error.code() in _GONE:
                raise KafkaException(error)
            return
        headers = headers_of(message)
        if (_HEADER, str(self._address).encode()) not in headers:
            return
        outcome = read_outcome(headers, message.value(), message.timestamp()[1])
        if outcome is not None:
            self._on_outcome(outcome)
