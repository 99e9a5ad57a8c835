"""Follows the result topics, and the event topics where API callers may ask by id, from some minutes back.

Reads: result topics, events.*. Blocking: runs in a thread of its own; no call into Kafka takes longer than 2 s.
"""

import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.codec import Position
from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, self_watching
from contracts.logs import logger
from gateways.egress.outcomes import Accepted, Outcome, OutcomeCache, read_accepted, read_outcome, read_repetition
from gateways.egress.reading import LogIds, offset_since, partitions_of, watermarks

# Decision: most results are asked for within minutes; older ones are found by the ticket's position.
WINDOW_S = 600.0
MAX_RECORDS_PER_PARTITION = 10_000
# Clocks of the machines that stamp records may differ.
_CLOCK_MARGIN_MS = 60_000
_CALL_TIMEOUT_S = 2.0
_REFRESH_S = 5.0
_RETRY_S = 1.0
_POLL_S = 0.25
_POLL_RECORDS = 500

_log = logger("gateway")
Place = tuple[str, int]


class Tail:
    """Feeds an OutcomeCache from the topics.

    Args:
        config: of the consumer.
        result_topics: whose terminal records are kept.
        event_topics: whose events of API callers are noted; empty when there are no API callers.
        cache: where both go.
        on_outcome: hears of every outcome, on the thread, once it is in the cache.

    Attributes:
        log_ids: which logs are followed, as far as it is known; by topic.
        read_to: by topic and partition, the offset behind what is in the cache, or was.
    """

    def __init__(
        self,
        config: dict[str, Any],
        result_topics: Sequence[str],
        event_topics: Sequence[str],
        cache: OutcomeCache,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._config = config | {"error_cb": self._on_error}
        self._result_topics = frozenset(result_topics)
        self._topics = (*result_topics, *event_topics)
        self._log_ids = LogIds(config, self._topics)
        self._cache = cache
        self._on_outcome = on_outcome
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="results-tail", daemon=True)
        self._refresh_at_s = 0.0
        # Written by the thread, read by others: single assignments of immutable values, no lock needed.
        self._covered_from_ms: dict[Place, int | None] = {}
        self._caught_up: frozenset[Place] = frozenset()
        self._is_reachable = False
        self._has_looked = False
        self._is_warned = False
        self._logs = 0
        self.log_ids: Mapping[str, str] = {}
        self.read_to: dict[Place, int] = {}

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
    def is_reachable(self) -> bool:
        """Tell whether the brokers answered last time."""
        return self._is_reachable

    @property
    def is_caught_up(self) -> bool:
        """Tell whether the end of every partition has been reached once."""
        return self._is_reachable and self._has_looked and self._caught_up >= self._covered_from_ms.keys()

    @property
    def logs(self) -> int:
        """Return a number that is another one once a topic was made anew, so that offsets of before say nothing."""
        return self._logs

    def covers(self, partition: int, since_ms: int) -> bool:
        """Tell whether every outcome since an instant, in this partition of any result topic, has been seen."""
        since_ms -= _CLOCK_MARGIN_MS
        # Once: the thread may let go of a topic meanwhile.
        places = self._covered_from_ms.items()
        covered = [
            from_ms for (topic, number), from_ms in places if topic in self._result_topics and number == partition
        ]
        return self.is_caught_up and all(
            from_ms is not None and (from_ms == 0 or from_ms <= since_ms) for from_ms in covered
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except LogUnavailable as error:
                _log.warning("results.log_unavailable", error=str(error))
                self._is_reachable = False
                self._stop.wait(_RETRY_S)
            except Exception:  # noqa: BLE001 - the edge of this thread: nobody above could do more than start again
                _log.exception("results.tail_failed")
                self._is_reachable = False
                self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        self._covered_from_ms, self._caught_up, self._has_looked, self._refresh_at_s = {}, frozenset(), False, 0.0
        self.read_to = {}
        consumer = Consumer(self._config | self_watching())
        try:
            while not self._stop.is_set():
                if anew := self._log_ids.made_anew():
                    self._let_go(consumer, anew)
                # Invariant: whoever sees these ids sees nothing that was said of the former logs.
                self.log_ids = self._log_ids.ids
                if time.monotonic() >= self._refresh_at_s:
                    self._refresh(consumer)
                # One at a time wakes at the first record; a batch would wait for its time to be up.
                message = consumer.poll(_POLL_S)
                if message is not None:
                    for one in (message, *consumer.consume(_POLL_RECORDS, 0)):
                        self._take(one)
        finally:
            consumer.close()

    def _refresh(self, consumer: Consumer) -> None:
        """Ask for the topics' partitions, which also tells whether the brokers are there, and follow new ones."""
        try:
            found = {topic: partitions_of(consumer, topic, _CALL_TIMEOUT_S) for topic in self._topics}
            places = [(topic, partition) for topic, partitions in found.items() for partition in partitions]
            self._add(consumer, [place for place in places if place not in self._covered_from_ms])
        except (LogUnavailable, KafkaException) as error:
            if not self._is_warned:
                _log.warning("results.log_unavailable", error=str(error))
            self._is_reachable, self._is_warned = False, True
            self._refresh_at_s = time.monotonic() + _RETRY_S
            return
        self._is_reachable, self._has_looked, self._is_warned = True, True, False
        # A topic that does not exist yet may get its first record any moment.
        self._refresh_at_s = time.monotonic() + (_REFRESH_S if all(found.values()) else _RETRY_S)

    def _let_go(self, consumer: Consumer, anew: Container[str]) -> None:
        """Forget topics that were made anew: they are followed again like new ones."""
        former = [place for place in self._covered_from_ms if place[0] in anew]
        _log.warning("results.topics_made_anew", topics=sorted({topic for topic, _ in former}))
        # Invariant: `covers` says nothing of a partition until its new log has been read up to the end.
        self._has_looked, self._refresh_at_s, self._logs = False, 0.0, self._logs + 1
        consumer.incremental_unassign([TopicPartition(*place) for place in former])
        self._caught_up -= frozenset(former)
        self.read_to = {place: at for place, at in self.read_to.items() if place[0] not in anew}
        self._covered_from_ms = {place: at for place, at in self._covered_from_ms.items() if place[0] not in anew}

    def _add(self, consumer: Consumer, places: Sequence[Place]) -> None:
        """Follow more partitions; all are looked up before the first is fetched."""
        starts = []
        covered_from_ms: dict[Place, int | None] = {}
        for topic, partition in places:
            now_ms = int(time.time() * 1000)
            low, high = watermarks(consumer, topic, partition, _CALL_TIMEOUT_S)
            since = offset_since(consumer, topic, partition, now_ms - int(WINDOW_S * 1000), _CALL_TIMEOUT_S)
            start = max(low, high - MAX_RECORDS_PER_PARTITION, since or 0)
            covered_from_ms[topic, partition] = 0 if start == low else now_ms if start >= high else None
            starts.append(TopicPartition(topic, partition, start))
        if starts:
            consumer.incremental_assign(starts)
            self._covered_from_ms = self._covered_from_ms | covered_from_ms

    def _take(self, message: KafkaMessage) -> None:
        topic, partition = message.topic() or "", message.partition()
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and partition is not None:  # noqa: SLF001 - the client's public constant
                self._caught_up |= {(topic, partition)}
                # What lies behind the last record, as the end of a transaction does, is no record.
                self.read_to[topic, partition] = message.offset() or 0
            return
        timestamp_ms = message.timestamp()[1]
        if self._covered_from_ms.get((topic, partition or 0), 0) is None:
            self._covered_from_ms = self._covered_from_ms | {(topic, partition or 0): timestamp_ms}
        if topic in self._result_topics:
            self._take_outcome(message, timestamp_ms)
        else:
            self._take_event(message, timestamp_ms)
        self.read_to[topic, partition or 0] = (message.offset() or 0) + 1

    def _take_outcome(self, message: KafkaMessage, timestamp_ms: int) -> None:
        headers = headers_of(message)
        outcome = read_outcome(headers, message.value(), timestamp_ms)
        if outcome is None:
            if (repetition := read_repetition(headers, message.value())) is not None:
                self._cache.note_repetition(repetition)
            return
        self._cache.add(outcome)
        if outcome.owner and outcome.answers is not None:
            self._cache.note_accepted(outcome.owner, outcome.event_id, Accepted(outcome.source, outcome.answers))
        self._on_outcome(outcome)

    def _take_event(self, message: KafkaMessage, timestamp_ms: int) -> None:
        position = Position(message.topic() or "", message.partition() or 0, message.offset() or 0, timestamp_ms)
        noted = read_accepted(headers_of(message), position)
        if noted is not None:
            self._cache.note_accepted(*noted)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the client's public constant
            self._is_reachable = False
            self._refresh_at_s = 0.0
