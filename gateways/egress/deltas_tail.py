"""Follows the topic of deltas from the present on, and hands over the records of events that somebody watches.

Reads: deltas. Blocking: runs in a thread of its own; no call into Kafka takes longer than 2 s.
"""

import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, self_watching
from contracts.logs import logger
from contracts.metrics import DELTAS_FOLLOWED
from gateways.egress.feed import delta_name
from gateways.egress.reading import LogIds, partitions_of, watermarks

_CALL_TIMEOUT_S = 2.0
_REFRESH_S = 5.0
_RETRY_S = 1.0
_POLL_S = 0.25
_POLL_RECORDS = 500

_log = logger("gateway")


class Arrival(NamedTuple):
    """A delta of a watched event; `name` is the event's."""

    name: str
    offset: int
    value: bytes | None


class DeltasTail:
    """Hands over deltas in the order of the log.

    Args:
        config: of the consumer.
        topic: of the deltas.
        wanted: names of the events that are watched; read on the thread.
        on_arrivals: gets a batch, on the thread.
        on_gap: called on the thread when it begins, or begins anew, and may have missed records; also when the topic
            was made anew.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        wanted: Container[str],
        on_arrivals: Callable[[Sequence[Arrival]], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._config = config
        self._topic = topic
        self._log_ids = LogIds(config, (topic,))
        self._wanted = wanted
        self._on_arrivals = on_arrivals
        self._on_gap = on_gap
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deltas-tail", daemon=True)
        # Written by the thread, read by others: single assignments of immutable values, no lock needed.
        self._followed: frozenset[int] = frozenset()
        self._is_first_look = True
        self._refresh_at_s = 0.0
        self._is_warned = False

    def start(self) -> None:
        """Start the thread; returns at once also while the brokers are away."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread runs."""
        return self._thread.is_alive()

    @property
    def is_following(self) -> bool:
        """Tell whether whatever is put on the topic from now on will be handed over."""
        return bool(self._followed)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except LogUnavailable as error:
                _log.warning("deltas.log_unavailable", error=str(error))
                self._on_gap()
                self._stop.wait(_RETRY_S)
            except Exception:  # noqa: BLE001 - the edge of this thread: nobody above could do more than start again
                _log.exception("deltas.tail_failed")
                self._on_gap()
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        self._is_first_look, self._refresh_at_s = True, 0.0
        consumer = Consumer(self._config | self_watching())
        try:
            while not self._stop.is_set():
                if self._log_ids.made_anew():
                    self._let_go(consumer)
                if time.monotonic() >= self._refresh_at_s:
                    self._refresh(consumer)
                # One at a time wakes at the first record; a batch would wait for its time to be up.
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take([message, *consumer.consume(_POLL_RECORDS, 0)])
        finally:
            self._note_followed(frozenset())
            consumer.close()

    def _refresh(self, consumer: Consumer) -> None:
        """Follow partitions that are new: those of the first look from now on, later ones from their beginning."""
        try:
            found = partitions_of(consumer, self._topic, _CALL_TIMEOUT_S)
            starts = [
                TopicPartition(self._topic, partition, self._start(consumer, partition))
                for partition in found
                if partition not in self._followed
            ]
            if starts:
                consumer.incremental_assign(starts)
        except (LogUnavailable, KafkaException) as error:
            if not self._is_warned:
                _log.warning("deltas.log_unavailable", error=str(error))
            self._is_warned = True
            self._refresh_at_s = time.monotonic() + _RETRY_S
            return
        self._is_first_look, self._is_warned = False, False
        self._note_followed(self._followed | frozenset(found))
        if starts:
            # Behind the end that somebody's look-up has reached there may be records that we will not see.
            self._on_gap()
        self._refresh_at_s = time.monotonic() + (_REFRESH_S if found else _RETRY_S)

    def _let_go(self, consumer: Consumer) -> None:
        """Follow nothing any more: the topic was made anew, and its new partitions are read from their beginning."""
        _log.warning("deltas.topic_made_anew", topic=self._topic)
        self._note_followed(frozenset())
        consumer.unassign()
        self._refresh_at_s = 0.0

    def _note_followed(self, partitions: frozenset[int]) -> None:
        self._followed = partitions
        DELTAS_FOLLOWED.set(1 if partitions else 0)

    def _start(self, consumer: Consumer, partition: int) -> int:
        low, end = watermarks(consumer, self._topic, partition, _CALL_TIMEOUT_S)
        return end if self._is_first_look else low

    def _take(self, messages: Sequence[KafkaMessage]) -> None:
        arrivals = []
        for message in messages:
            if message.error() is None:
                name = delta_name(headers_of(message))
                if name in self._wanted:
                    arrivals.append(Arrival(name, message.offset() or 0, message.value()))
        if arrivals:
            self._on_arrivals(arrivals)
