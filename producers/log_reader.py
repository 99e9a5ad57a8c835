"""Reads topics of no group: from known offsets to the end, or on and on; for batch jobs and hand-overs.

Blocking: requests up to 10 s, polls up to their timeout; gives up after 30 s of silence where an end must come, and
half a second after a stop.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from contracts.errors import LogUnavailable
from contracts.kafka_config import bytes_of, headers_of
from contracts.settings import KafkaSettings
from contracts.signals import killable
from producers.admin import TopicAdmin
from producers.kafka_client import (
    NO_GROUP,
    QUEUE_LIMITS,
    IsStopped,
    Stopped,
    client_config,
    error_of,
    made,
    unless_stopped,
)

_BATCH = 500
# What one poll returns is held by who works on it, and may be of 8 MiB each: it ends at so many bytes, and no more than
# some records later.
_BATCH_BYTES, _AT_ONCE = 16 * 2**20, 8
_REQUEST_S = 10.0
_SILENCE_LIMIT_S = 30.0
# One answer of a broker.
_FETCH_BYTES = 4 * 2**20
_APPEARS_S = 5.0
_WIDEN_EVERY_S = 30.0
# Looks in vain after which a client counts as one that has lost all its brokers for good: see self_watching, which is
# for those that are polled all the time.
_LOOKS = 2
_PASSING = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, NO_GROUP})  # noqa: SLF001 - so named
_MOVING = frozenset(
    {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART}
)
_EOF = KafkaError._PARTITION_EOF  # noqa: SLF001 - so named

Place = tuple[str, int]
_Answer = TypeVar("_Answer")


class Found(NamedTuple):
    """A record.

    Attributes:
        headers: by name, of repeated ones the last, without those that have no value.
        pairs: all headers as they lie there.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    pairs: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = -1


class LogReader:
    """A consumer of no group that sees what was committed, as the workers do; a context manager.

    Args:
        kafka: where.
        is_stopped: gives up requests and reading to an end when it says so; None = never.

    Attributes:
        shortened: topics that had lost records, by their retention, behind where the reader was placed.

    Raises:
        LogUnavailable: the threads of its clients cannot be started now.
    """

    def __init__(self, kafka: KafkaSettings, is_stopped: IsStopped | None = None) -> None:
        self._kafka = kafka
        self._is_stopped = is_stopped
        # A request that was given up still works with a client of ours.
        self._is_left = False
        # Where each partition must be read to, and has been.
        self._open: dict[Place, int] = {}
        self._positions: dict[Place, int] = {}
        self._widen_at_s = 0.0
        self._failed_looks = 0
        self._admin: TopicAdmin | None = None
        # Of the topics that are read, where it matters whether they are made anew.
        self._logs: dict[str, str] = {}
        self.shortened: set[str] = set()
        self._consumer, self._ends = self._clients()

    def _clients(self) -> tuple[Consumer, Consumer]:
        """Return the one that reads, and the one that is asked."""
        reading = self._client(
            {
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                **QUEUE_LIMITS,
                "fetch.max.bytes": _FETCH_BYTES,
                "fetch.wait.max.ms": 50,
            }
        )
        # Asked for the ends alone: of committed records they would end in front of anybody's open transaction.
        return reading, self._client({"isolation.level": "read_uncommitted"})

    def _client(self, more: dict[str, Any]) -> Consumer:
        config: dict[str, Any] = {
            "client.id": "penstock-batch",
            # Never joined and nothing is committed: librdkafka wants a name.
            "group.id": "penstock-batch-reader",
            "enable.auto.commit": False,
            "allow.auto.create.topics": self._kafka.embedded,
            "log_level": 0,
        }
        return made(lambda: Consumer(client_config(self._kafka) | config | more))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._is_left:
            self._consumer.close()
            self._ends.close()

    def spans(self, topic: str) -> list[tuple[int, int]]:
        """Return where each partition of a topic begins and ends now, in the order of their numbers.

        Raises:
            LogUnavailable: no broker answers, or there is no such topic.
            Stopped: a stop came first.
        """
        return self._asked(lambda: self._spans(topic))

    def _asked(self, request: Callable[[], _Answer]) -> _Answer:
        try:
            with killable():
                return unless_stopped(request, self._is_stopped)
        except Stopped:
            self._is_left = True
            raise

    def _spans(self, topic: str) -> list[tuple[int, int]]:
        end_s = time.monotonic() + _APPEARS_S
        while True:
            try:
                return [self._span(topic, number) for number in range(self._partitions(topic))]
            except KafkaException as error:
                # A new topic may have no leaders yet, and a moved one other ones than the client knows.
                if error_of(error).code() not in _MOVING or time.monotonic() > end_s:
                    raise self._unreachable(error) from error
                time.sleep(0.1)

    def _span(self, topic: str, number: int) -> tuple[int, int]:
        span: tuple[int, int] = self._ends.get_watermark_offsets(TopicPartition(topic, number), _REQUEST_S)
        return span

    def ends(self, topic: str) -> tuple[int, ...]:
        """Return where each partition of a topic ends now.

        Raises:
            LogUnavailable: no broker answers, or there is no such topic.
        """
        return tuple(end for _, end in self.spans(topic))

    def logs(self, topics: Iterable[str]) -> dict[str, str]:
        """Return Kafka's ids of topics, hexadecimal: made anew under its name, one has another, and other offsets.

        Ask before the offsets that are to be of these logs. Without topics whose id Kafka does not say (the embedded
        broker, brokers before 2.8, none that answers).

        Raises:
            Stopped: a stop came first.
        """
        if self._kafka.embedded:
            return {}
        admin = self._admin = self._admin or TopicAdmin(self._kafka, _REQUEST_S)
        return {topic: f"{number:032x}" for topic, number in self._asked(lambda: admin.ids(topics)).items()}

    def _made_anew(self) -> set[str]:
        """Return the topics that have other ids than when this was asked last."""
        now = self.logs(self._logs) if self._logs else {}
        anew = {topic for topic, log in now.items() if log != self._logs[topic]}
        self._logs |= now
        return anew

    def _partitions(self, topic: str) -> int:
        end_s = time.monotonic() + _APPEARS_S
        while True:
            found = self._ends.list_topics(topic, timeout=_REQUEST_S).topics[topic]
            if found.error is None and found.partitions:
                return len(found.partitions)
            # A new topic is not known to every broker at once; on the embedded one the first question makes it.
            if time.monotonic() > end_s:
                message = f"topic {topic} does not exist; `penstock topics create` makes it"
                raise LogUnavailable(message)
            time.sleep(0.05)

    def begin(self, starts: Mapping[str, Iterable[int]], logs: Mapping[str, str] | None = None) -> None:
        """Place the reader: by topic, the offset of each partition; partitions that came since start at their first.

        Args:
            starts: the offsets.
            logs: what `logs` said when they were noted. A topic that is another log by now is read from its first
                record, and so is one that is made anew later (`widen`). None = the names alone count.

        Raises:
            LogUnavailable: no broker answers, or there is no such topic.
        """
        noted = logs or {}
        # Before their ends, as they were noted: what is made anew in between is noticed afterwards.
        self._logs = self.logs(starts) if logs is not None else {}
        if untold := sorted(noted.keys() - self._logs.keys()):
            message = f"Kafka does not say whether these topics were made anew: {', '.join(untold)}"
            raise LogUnavailable(message)
        anew = {topic for topic, log in noted.items() if self._logs[topic] != log}
        ranges: dict[str, dict[int, tuple[int, int]]] = {}
        self.shortened = set()
        for topic, offsets in starts.items():
            known, spans = [] if topic in anew else list(offsets), self.spans(topic)
            ranges[topic] = {
                number: (known[number] if number < len(known) else begins, end)
                for number, (begins, end) in enumerate(spans)
            }
            if any(start < begins for start, (begins, _) in zip(known, spans, strict=False)):
                self.shortened.add(topic)
        self._place(ranges)

    def _place(self, ranges: Mapping[str, Mapping[int, tuple[int, int]]]) -> None:
        spans = {(topic, number): span for topic, parts in ranges.items() for number, span in parts.items()}
        self._open = {place: end for place, (start, end) in spans.items() if start < end}
        self._positions = {place: start for place, (start, _) in spans.items()}
        self._consumer.assign([TopicPartition(*place, start) for place, (start, _) in spans.items()])

    def widen(self) -> set[str]:
        """Take up partitions that were added since, or made anew, at their first record; return topics made anew.

        Looks every 30 s, if brokers answer. Where they do not, it goes on with other clients after a minute. Made anew
        is known where `begin` was told of logs.
        """
        anew: set[str] = set()
        if time.monotonic() < self._widen_at_s:
            return anew
        self._widen_at_s = time.monotonic() + _WIDEN_EVERY_S
        topics = {topic for topic, _ in self._positions}
        with contextlib.suppress(LogUnavailable, KafkaException):
            self._look()
            counts = self._asked(lambda: {topic: self._partitions(topic) for topic in topics})
            if anew := self._made_anew():
                self._positions = {place: at for place, at in self._positions.items() if place[0] not in anew}
            places = ((topic, number) for topic, count in counts.items() for number in range(count))
            if new := [place for place in places if place not in self._positions]:
                self._positions |= dict.fromkeys(new, 0)
                self._consumer.assign([TopicPartition(*place, at) for place, at in self._positions.items()])
        return anew

    def _look(self) -> None:
        """See whether both clients still find a broker, and replace them when one does not.

        Raises:
            KafkaException: one does not, this time.
            LogUnavailable: the same, or there is no thread for another one now.
        """
        topic = next((topic for topic, _ in self._positions), None)
        try:
            for client in (self._consumer, self._ends):
                self._asked(partial(client.list_topics, topic, timeout=_REQUEST_S))
            self._failed_looks = 0
        except KafkaException:
            self._failed_looks += 1
            if self._failed_looks % _LOOKS == 0:
                former = self._consumer, self._ends
                self._consumer, self._ends = self._clients()
                self._consumer.assign([TopicPartition(*place, at) for place, at in self._positions.items()])
                for client in former:
                    client.close()
            raise

    def read(self, topic: str, ranges: Mapping[int, tuple[int, int]]) -> Iterator[Found]:
        """Yield the records of some partitions, from the first offset up to, not including, the second.

        Raises:
            LogUnavailable: as `to_the_end`.
        """
        self._place({topic: ranges})
        for record in self.to_the_end():
            if record.offset < ranges[record.partition][1]:
                yield record

    @property
    def at_end(self) -> bool:
        """True once every partition has been read to where it ended when the reader was placed."""
        return not self._open

    def to_now(self) -> None:
        """Let `at_end` tell whether partitions were read to where they end now.

        Raises:
            LogUnavailable: no broker answers; `at_end` means what it meant.
            Stopped: a stop came first.
        """
        topics = {topic for topic, _ in self._positions}
        ends = {(topic, number): end for topic in topics for number, end in enumerate(self.ends(topic))}
        self._open = {place: end for place, end in ends.items() if self._positions.get(place, 0) < end}

    def position(self, topic: str, partition: int) -> int:
        """Return where a partition goes on: what lies before was returned, or holds no record for us; 0 = not begun."""
        return self._positions.get((topic, partition), 0)

    def poll(self, timeout_s: float) -> list[Found]:
        """Return what has come; nothing at all while brokers are away.

        Raises:
            LogUnavailable: the broker reports an error that does not pass by itself.
        """
        found = []
        for message in self._consumed(timeout_s):
            error = message.error()
            place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
            if error is None:
                pairs = headers_of(message)
                headers = {name: raw for name, raw in pairs if raw is not None}
                key, value, stamp_ms = bytes_of(message.key()), bytes_of(message.value()), message.timestamp()[1]
                found.append(Found(*place, offset, key, value, headers, tuple(pairs), stamp_ms))
                self._reached(place, offset + 1)
            elif error.code() == _EOF:
                # Also told behind the marks of transactions, which are no records.
                self._reached(place, offset)
            elif not error.retriable() and error.code() not in _PASSING:
                text = f"{place[0]} cannot be read: {error.str()}"
                raise LogUnavailable(text)
        return found

    def _consumed(self, timeout_s: float) -> Iterator[Message]:
        """Yield what has come, up to a number and a size."""
        end_s, count, size_bytes = time.monotonic() + timeout_s, 0, 0
        while count < _BATCH and size_bytes < _BATCH_BYTES:
            messages = self._consumer.consume(_AT_ONCE, max(0.0, end_s - time.monotonic()))
            yield from messages
            count, size_bytes = (
                count + len(messages),
                size_bytes + sum(len(one) for one in messages if one.error() is None),
            )
            if len(messages) < _AT_ONCE:
                return

    def _reached(self, place: Place, offset: int) -> None:
        self._positions[place] = offset
        if offset >= self._open.get(place, offset + 1):
            del self._open[place]

    def to_the_end(self) -> Iterator[Found]:
        """Yield records until every partition was read to where it ended when the reader was placed.

        It waits for transactions that are open there: what lies behind them may be what is looked for.

        Raises:
            LogUnavailable: as `poll`, or nothing came for 30 s, longer than our transactions may last; or a topic was
                made anew meanwhile, where `begin` was told of logs.
            Stopped: a stop came first.
        """
        heard_s = time.monotonic()
        while not self.at_end:
            if self._is_stopped is not None and self._is_stopped():
                message = "stopped while reading topics to their end"
                raise Stopped(message)
            still_open = len(self._open)
            found = self.poll(0.2)
            yield from found
            if found or len(self._open) < still_open:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > _SILENCE_LIMIT_S:
                message = f"topics cannot be read to their end: {sorted(self._open)}"
                raise LogUnavailable(message)
        if anew := self._made_anew():
            message = f"topics were made anew while they were read: {', '.join(sorted(anew))}"
            raise LogUnavailable(message)

    def _unreachable(self, error: KafkaException) -> LogUnavailable:
        servers = ",".join(self._kafka.bootstrap_servers)
        return LogUnavailable(f"Kafka at {servers} does not answer: {error_of(error).str()}")
