"""Follows the result topics, and the event topics where API callers may ask by id, and writes the index.

Reads: result topics, events.*. Blocking: runs in a thread of its own; no call into Kafka takes longer than 2 s.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.codec import Position
from contracts.errors import ConfigError, LogUnavailable
from contracts.kafka_config import headers_of, self_watching
from contracts.logs import logger
from gateways.egress.index import ResultIndex
from gateways.egress.outcomes import Accepted, Noted, Outcome, Place, Written, read_accepted, read_outcome
from gateways.egress.reading import LogIds, other_logs, partitions_of, watermarks

_CALL_TIMEOUT_S = 2.0
_REFRESH_S = 5.0
_RETRY_S = 1.0
# Of a disk that stays full, or cannot be written: it is tried all the same.
_SAY_EVERY_S = 30.0
_POLL_S = 0.25
_POLL_RECORDS = 1000
# One transaction: as many rows as come in this time, or so many.
_WRITE_EVERY_S = 0.5
_WRITE_ROWS = 5000
# Outcomes among which a second one of an event is noticed: a crash causes one within minutes. Some 5 MB.
_RECENT = 20_000

_log = logger("gateway")


class Indexing:
    """Feeds a ResultIndex from the topics, from where it ended the last time.

    Args:
        config: of the consumer.
        result_topics: whose terminal records are indexed.
        event_topics: whose events of API callers are noted.
        index: where both go.
        retention_s: older outcomes are dropped.
        clock: Unix seconds.
        monotonic: seconds, for the pace of warnings.

    Attributes:
        is_caught_up: whether everything up to the present has been read once, of the logs of `log_ids`.
        log_ids: which logs are read, as far as it is known; by topic.
        read_to: by topic and partition, the offset behind what is in the index; replaced, never changed.
    """

    def __init__(
        self,
        config: dict[str, Any],
        result_topics: Sequence[str],
        event_topics: Sequence[str],
        index: ResultIndex,
        retention_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config | {"client.id": "penstock-gateway-index"}
        self._result_topics = frozenset(result_topics)
        self._topics = (*result_topics, *event_topics)
        self._index = index
        self._log_ids = LogIds(config, self._topics, index.log_ids())
        self._retention_s = retention_s
        self._clock = clock
        self._monotonic = monotonic
        self._quiet_until_s: dict[type[Exception], float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="results-index", daemon=True)
        self._followed: set[tuple[str, int]] = set()
        self._at_end: set[tuple[str, int]] = set()
        self._recent: dict[str, int] = {}
        self._clear()
        # Written by the thread, read by others: single assignments.
        self.is_caught_up = False
        self.log_ids = self._log_ids.ids
        self.read_to: Mapping[tuple[str, int], int] = {}
        self._is_hurried = False

    def start(self) -> None:
        """Start the thread; returns at once also while the brokers are away."""
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop the thread; what was read and not written yet is read again."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def hurry(self) -> None:
        """Write what has been read without waiting for more: somebody waits for it."""
        self._is_hurried = True

    def _run(self) -> None:
        is_warned = False
        while not self._stop.is_set():
            try:
                self._follow()
            except (LogUnavailable, KafkaException) as error:
                if not is_warned:
                    _log.warning("results.index_waits", error=str(error))
                is_warned = True
            except (sqlite3.Error, OSError, ConfigError) as error:
                # If it is no damage, of a full disk, or one that cannot be written: it may pass.
                if not (isinstance(error, sqlite3.Error) and self._index.note_damage(error)):
                    self._say(error)
            except Exception:  # noqa: BLE001 - the edge of this thread: nobody above could do more than start again
                _log.exception("results.index_failed")
            self._stop.wait(_RETRY_S)

    def _say(self, error: Exception) -> None:
        now_s = self._monotonic()
        if now_s >= self._quiet_until_s.get(type(error), 0.0):
            self._quiet_until_s[type(error)] = now_s + _SAY_EVERY_S
            _log.warning("results.index_waits", error=str(error))

    def _follow(self) -> None:
        self._followed, self._at_end, self.is_caught_up = set(), set(), False
        self.read_to = {}
        # What is read again, after a failed write or of a log made anew, is no second outcome.
        self._recent.clear()
        self._clear()
        if self._index.is_damaged:
            self._index.make_anew()
            # The new file knows no ids yet.
            self.log_ids = {}
        consumer = Consumer(self._config | self_watching())
        refresh_s = 0.0
        try:
            while not self._stop.is_set():
                if self._is_log_other() or self._index.is_damaged:
                    return
                if time.monotonic() >= refresh_s:
                    self._refresh(consumer)
                    refresh_s = time.monotonic() + _REFRESH_S
                message = consumer.poll(_POLL_S)
                if message is not None:
                    for one in (message, *consumer.consume(_POLL_RECORDS, 0)):
                        self._take(one)
                self._write()
        finally:
            consumer.close()

    def _refresh(self, consumer: Consumer) -> None:
        found = [(topic, part) for topic in self._topics for part in partitions_of(consumer, topic, _CALL_TIMEOUT_S)]
        stored = self._index.next_offsets()
        starts = []
        for topic, partition in found:
            if (topic, partition) in self._followed:
                continue
            low, high = watermarks(consumer, topic, partition, _CALL_TIMEOUT_S)
            start = stored.get((topic, partition), low)
            # Beyond the end: the topic was made anew. Where it is longer by now, its id says so a little later.
            start = low if start > high else max(low, start)
            starts.append(TopicPartition(topic, partition, start))
            self._followed.add((topic, partition))
        if starts:
            consumer.incremental_assign(starts)

    def _is_log_other(self) -> bool:
        """Tell whether a topic was made anew, also since the last start: it is read from its beginning then."""
        self._log_ids.made_anew()
        ids = self._log_ids.ids
        if ids == self.log_ids:
            return False
        anew = other_logs(self.log_ids, ids)
        self._index.note_logs(ids, anew)
        if anew:
            _log.warning("results.index_topics_made_anew", topics=sorted(anew))
            self.is_caught_up = False
        # Invariant: whoever sees these ids sees nothing that was said of the former logs.
        self.log_ids = ids
        return bool(anew)

    def _take(self, message: KafkaMessage) -> None:
        place = (message.topic() or "", message.partition() or 0)
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                self._at_end.add(place)
                # What lies behind the last record, as the end of a transaction does, is no record.
                self._next[place] = message.offset() or 0
            return
        offset, timestamp_ms = message.offset() or 0, message.timestamp()[1]
        self._next[place] = offset + 1
        headers = headers_of(message)
        if place[0] not in self._result_topics:
            noted = read_accepted(headers, Position(*place, offset, timestamp_ms))
            if noted is not None:
                self._accepted.append(Noted(*noted))
            return
        outcome = read_outcome(headers, message.value(), timestamp_ms)
        if outcome is None:
            return
        if self._counts(outcome):
            self._outcomes.append(Written(outcome.result_id, Place(*place, offset), timestamp_ms))
        if outcome.owner and outcome.answers is not None:
            # Also where the event itself is gone already, or was never read here.
            self._accepted.append(Noted(outcome.owner, outcome.event_id, Accepted(outcome.source, outcome.answers)))

    def _counts(self, outcome: Outcome) -> bool:
        """Tell whether it is an event's first outcome, or the first since it was put back from the dead letters."""
        if outcome.redrives <= self._recent.get(outcome.name, -1):
            return False
        self._recent[outcome.name] = outcome.redrives
        if len(self._recent) > _RECENT:
            del self._recent[next(iter(self._recent))]
        return True

    def _write(self) -> None:
        """Write what has gathered, when it is enough or time."""
        rows = len(self._outcomes) + len(self._accepted)
        if rows < _WRITE_ROWS and time.monotonic() < self._write_at_s and not self._is_hurried:
            return
        self._is_hurried = False
        if self._next:
            keep_since_ms = int((self._clock() - self._retention_s) * 1000)
            self._index.write(self._outcomes, self._accepted, self._next, keep_since_ms)
            self.read_to = {**self.read_to, **self._next}
        self._clear()
        self.is_caught_up = self.is_caught_up or (bool(self._followed) and self._at_end >= self._followed)

    def _clear(self) -> None:
        self._outcomes: list[Written] = []
        self._accepted: list[Noted] = []
        self._next: dict[tuple[str, int], int] = {}
        self._write_at_s = time.monotonic() + _WRITE_EVERY_S
