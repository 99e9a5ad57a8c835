"""Reads the tail of the result topics: which events are answered already.

Reads: results. Blocking: runs in a thread; measured 0.03-0.3 s for up to 100,000 small results (docs/pay-once.md).
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import confluent_kafka

from contracts.codec import source_position
from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of
from contracts.logs import logger
from contracts.settings import KafkaSettings
from producers.admin import TopicAdmin
from producers.kafka_client import NO_GROUP, QUEUE_LIMITS, client_config
from streams.engine.item import TP, ResultRef
from streams.engine.ledger import Answers
from streams.large_pages import give_back

_REQUEST_TIMEOUT_S = 10.0
# The books wait for ids, and can do without; it takes 20-35 ms on one broker of our own (measured).
_ADMIN_TIMEOUT_S = 2.0
_NOT_THERE = frozenset(
    {
        confluent_kafka.KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - the client's public constants
        confluent_kafka.KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
_IDLE_TIMEOUT_S = 20.0
_BATCH = 500
# So much may the clock of an event's writer be ahead of the worker's that answered it: brokers refuse more by default
# (Kafka 4.0), and an hour of results is looked through within seconds.
_CLOCKS_S = 3600.0
# As those of a worker that is not told otherwise.
_LIMITS = (1_000_000, 100_000)

T = TypeVar("T")
K = TypeVar("K")


@dataclass
class Tail:
    """What a scan found for one source partition.

    Attributes:
        answered: where the terminal records of events lie.
        starts, ends: per result topic, the scanned range of the matching partition.
        log: where the source partition begins and ends.
    """

    answered: Answers = field(default_factory=Answers)
    starts: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    log: tuple[int, int] = (0, 2**63 - 1)

    def forget_former(self, *, is_cut: bool) -> None:
        """Forget answers that may be to events of a former log.

        Those behind the end would hold the mark back; of a cut log they stay: better a scan than a call. And where
        there is no timestamp, nothing tells an event from the one that has its offset now: better a call than a loss.
        """
        self.answered.keep(2**63 if is_cut else self.log[1])


def ask(
    kafka: KafkaSettings, name: str, isolation: str, what: str, question: Callable[[confluent_kafka.Consumer], T]
) -> T:
    """Return what a consumer outside any group finds out.

    Args:
        kafka: connection.
        name: required by the client as a group, never joined: partitions are assigned.
        isolation: of aborted records and open transactions.
        what: is read, for the message.
        question: is asked.

    Raises:
        LogUnavailable: a broker did not answer, or the consumer could not be made.
    """
    config = client_config(kafka) | QUEUE_LIMITS
    config |= {
        "group.id": name,
        "enable.auto.commit": "false",
        "enable.partition.eof": "false",
        "auto.offset.reset": "error",
        "isolation.level": isolation,
    }
    try:
        # Also a client fails that cannot be made: its threads cannot be started, say.
        consumer = confluent_kafka.Consumer(config, logger=logging.getLogger("penstock.tail"))
        try:
            return question(consumer)
        finally:
            consumer.close()
    except confluent_kafka.KafkaException as error:
        message = f"{what} cannot be read: {error.args[0]}"
        raise LogUnavailable(message) from error


def read_ranges(
    consumer: confluent_kafka.Consumer,
    starts: Mapping[TP, int],
    ends: Mapping[TP, int],
    take: Callable[[confluent_kafka.Message], None],
) -> None:
    """Read each partition from its start to its end.

    Raises:
        LogUnavailable: no progress was made.
        KafkaException: a broker's answer.
    """
    consumer.assign([confluent_kafka.TopicPartition(tp.topic, tp.partition, start) for tp, start in starts.items()])
    open_partitions = set(starts)
    idle_s = 0.0
    while open_partitions:
        messages = consumer.consume(_BATCH, timeout=0.5)
        for message in messages:
            if (error := message.error()) is None:
                take(message)
            elif error.code() != NO_GROUP:
                raise confluent_kafka.KafkaException(error)
        # Positions, not the last message's offset: a partition may end with transaction markers.
        at = consumer.position([confluent_kafka.TopicPartition(*tp) for tp in open_partitions])
        open_partitions -= {TP(p.topic, p.partition) for p in at if p.offset >= ends[TP(p.topic, p.partition)]}
        idle_s = 0.0 if messages else idle_s + 0.5
        if idle_s >= _IDLE_TIMEOUT_S:
            message_text = f"partitions cannot be read to their end: {sorted(open_partitions)}"
            raise LogUnavailable(message_text)


def _bounds(consumer: confluent_kafka.Consumer, tp: TP) -> tuple[int, int] | None:
    """Return where a partition begins and ends; None when it is not there (any more)."""
    try:
        bounds: tuple[int, int] = consumer.get_watermark_offsets(
            confluent_kafka.TopicPartition(*tp), timeout=_REQUEST_TIMEOUT_S
        )
    except confluent_kafka.KafkaException as error:
        if error.args[0].code() in _NOT_THERE:
            return None
        raise
    return bounds


def _result_bounds(consumer: confluent_kafka.Consumer, tp: TP) -> tuple[int, int]:
    """Return where a result partition begins and ends.

    Raises:
        LogUnavailable: it is not there, as when only the event topics were given more partitions.
    """
    bounds = _bounds(consumer, tp)
    if bounds is None:
        why = "a result or retry goes to the partition number of its event"
        message = f"result topics cannot be read: {tp.topic} has no partition {tp.partition}, and {why}"
        raise LogUnavailable(message)
    return bounds


def _first_since(consumer: confluent_kafka.Consumer, tp: TP, since_ms: int) -> int:
    """Return the offset of the first record of a time or later; 0 where the broker cannot tell."""
    # Before the question by time, so that nothing falls between the two.
    _, end = _result_bounds(consumer, tp)
    asked = [confluent_kafka.TopicPartition(tp.topic, tp.partition, at_ms) for at_ms in (since_ms, 0)]
    try:
        found, first = (consumer.offsets_for_times([one], timeout=_REQUEST_TIMEOUT_S)[0] for one in asked)
    except confluent_kafka.KafkaException:
        return 0
    # Not even a first record: there is none, or it says so of any time.
    if found.error is not None or first.error is not None or first.offset < 0:
        return 0
    return int(found.offset) if found.offset >= 0 else int(end)


class TailReader:
    """Scans result partitions with a consumer of its own, outside any group.

    Args:
        kafka: connection.
        app_id: only terminal records of this application count.
        result_topics: all of them.
        limits: answers kept at a time: of all partitions together, and what one partition may have in any case.

    Attributes:
        result_topics: all of them.
        furthest: the most records that a scan has read since somebody set it to 0; of one that begins again, only what
            it reads beyond that is progress.
    """

    def __init__(
        self, kafka: KafkaSettings, app_id: str, result_topics: frozenset[str], limits: tuple[int, int] = _LIMITS
    ) -> None:
        self._limits = limits
        self._kafka = kafka
        self._app_id = app_id
        self.result_topics = result_topics
        self.furthest = 0
        # What the newest scan fills.
        self._scanned: Mapping[TP, Tail] = {}
        self._is_told = False
        # Kept for the questions that come every 30 s: each new client asks for a token of its own.
        self._admin: TopicAdmin | None = None

    def ids(self, topics: Iterable[str]) -> dict[str, int]:
        """Return which log each topic is: its id, another one when it is made anew; without those that are not known.

        The embedded broker has none.
        """
        wanted = frozenset(topics)
        found = {} if self._kafka.embedded else self._told(lambda admin: admin.ids(wanted), len(wanted))
        if not (self._is_told or self._kafka.embedded) and (unknown := sorted(wanted - found.keys())):
            self._is_told = True
            detail = "when such a topic is made anew, a commit of the former one may be taken for one of the new"
            logger("worker").info("topics.unidentified", topics=unknown, detail=detail)
        return found

    def ends(self, places: Collection[TP]) -> dict[tuple[str, int], int]:
        """Return where partitions of result topics end now; without those that are not known."""
        return self._told(lambda admin: admin.ends(places), len(places))

    def _told(self, question: Callable[[TopicAdmin], dict[K, int]], number: int) -> dict[K, int]:
        """Return what is told of so many."""
        found: dict[K, int] = {}
        # One that cannot be made knows nothing; it is no reason to end the worker.
        with contextlib.suppress(confluent_kafka.KafkaException, LogUnavailable):
            # Two threads may ask, and either may take it away.
            admin = self._admin = self._admin or TopicAdmin(self._kafka, _ADMIN_TIMEOUT_S)
            found = question(admin)
        if len(found) < number:
            # One that has lost all its brokers looks for none, and does not say so.
            self._admin = None
        return found

    def begins(self, logs: Mapping[TP, int], fresh: Container[TP]) -> dict[TP, dict[str, int]]:
        """Return from where on result topics can have answers of partitions that are read from their beginning.

        No answer is older than the first event that is left, but for the clocks. Where its time is not known, as on the
        embedded broker, that is everything.

        Args:
            logs: per source partition, the offset of that event.
            fresh: those without a commit, which is logged; why the others are begun again has been told.

        Raises:
            LogUnavailable: a broker did not answer.
        """
        since_ms = self._since_ms(logs)
        found = {tp: dict.fromkeys(self.result_topics, 0) for tp in logs}
        if since_ms:
            found |= self._ask(
                lambda consumer: {
                    tp: {topic: _first_since(consumer, TP(topic, tp.partition), at_ms) for topic in self.result_topics}
                    for tp, at_ms in since_ms.items()
                }
            )
        detail = "nothing is committed: results from these offsets on are looked through for what is answered already"
        for tp, starts in ((tp, starts) for tp, starts in found.items() if tp in fresh):
            logger("worker").info("commit.none", **tp._asdict(), offset=logs[tp], results=starts, detail=detail)
        return found

    def _since_ms(self, logs: Mapping[TP, int]) -> dict[TP, int]:
        """Return the time before which nothing is answered, where it is known."""
        if self._kafka.embedded or not logs:
            return {}
        oldest = dict[TP, tuple[int, int]]()
        with contextlib.suppress(confluent_kafka.KafkaException, LogUnavailable):
            found = TopicAdmin(self._kafka, _REQUEST_TIMEOUT_S).oldest(logs)
            oldest = {TP(*place): told for place, told in found.items()}
        clocks_ms = int(_CLOCKS_S * 1000)
        times = {tp: stamp_ms - clocks_ms for tp, (offset, stamp_ms) in oldest.items() if offset == logs[tp]}
        # One that lies ahead of us is not that of a clock.
        return {tp: at_ms for tp, at_ms in times.items() if 0 < at_ms < time.time() * 1000}

    def read(self, wanted: Mapping[TP, tuple[int, dict[str, int] | None]]) -> dict[TP, Tail]:
        """Scan for several source partitions at once.

        Args:
            wanted: per source partition, committed offset and marks; marks None = skip nothing, only find the ends.

        Raises:
            LogUnavailable: a broker did not answer, or the scan made no progress.
        """
        try:
            return self._ask(lambda consumer: self._scan(consumer, wanted))
        finally:
            give_back()

    def _ask(self, question: Callable[[confluent_kafka.Consumer], T]) -> T:
        # A transaction that somebody else leaves open on a result topic would hide our answers behind it.
        return ask(self._kafka, f"{self._app_id}-tail", "read_uncommitted", "result topics", question)

    def _scan(
        self, consumer: confluent_kafka.Consumer, wanted: Mapping[TP, tuple[int, dict[str, int] | None]]
    ) -> dict[TP, Tail]:
        for topic in self.result_topics:
            # Where topics appear on first use (the embedded broker), this makes it; elsewhere it was found at start.
            consumer.list_topics(topic, timeout=_REQUEST_TIMEOUT_S)
        most, least = self._limits
        limit = max(least, most // max(1, sum(marks is not None for _, marks in wanted.values())))
        self._scanned = tails = {tp: Tail(Answers(limit)) for tp in wanted}
        assignments: dict[TP, int] = {}
        for tp, (_, marks) in wanted.items():
            for topic in self.result_topics:
                low, high = _result_bounds(consumer, TP(topic, tp.partition))
                start = high if marks is None else min(max(marks.get(topic, high), low), high)
                tails[tp].starts[topic], tails[tp].ends[topic] = start, high
                if start < high:
                    result = TP(topic, tp.partition)
                    assignments[result] = min(start, assignments.get(result, start))
        for tp, tail in tails.items():
            # Behind the results: an event that is answered there lies before this end, or its broker has lost it.
            tail.log = _bounds(consumer, tp) or tail.log
        if assignments:
            ends = {TP(topic, tp.partition): end for tp, tail in tails.items() for topic, end in tail.ends.items()}
            self._read(consumer, assignments, ends, wanted, tails)
        detail = "more answers than are kept: the rest is looked for when the events before them have come"
        for tp, found in ((tp, tail.answered) for tp, tail in tails.items() if tail.answered.are_cut):
            told = {"answers": len(found), "known_to": found.known_to, "end": tails[tp].log[1]}
            logger("worker").info("answers.window", **tp._asdict(), **told, detail=detail)
        return tails

    def _read(
        self,
        consumer: confluent_kafka.Consumer,
        starts: dict[TP, int],
        ends: dict[TP, int],
        wanted: Mapping[TP, tuple[int, dict[str, int] | None]],
        tails: dict[TP, Tail],
    ) -> None:
        count = 0

        def take(message: confluent_kafka.Message) -> None:
            nonlocal count
            if self._scanned is not tails:
                # Nobody waits for this one any more: two at a time would be twice the memory.
                text = "the partitions were assigned anew meanwhile"
                raise LogUnavailable(text)
            count += 1
            self.furthest = max(self.furthest, count)
            self._note(message, wanted, tails)

        read_ranges(consumer, starts, ends, take)

    def _note(
        self,
        message: confluent_kafka.Message,
        wanted: Mapping[TP, tuple[int, dict[str, int] | None]],
        tails: dict[TP, Tail],
    ) -> None:
        found = source_position(headers_of(message))
        if found is None or found[0] != self._app_id:
            return
        position = found[1]
        tp = TP(position.topic, position.partition)
        request = wanted.get(tp)
        if request is None or request[1] is None or position.offset < request[0]:
            return
        ref = ResultRef(message.topic() or "", message.offset() or 0)
        # Lanes share a result partition, and the one whose mark is furthest back says where reading begins. Before its
        # own mark lie what an operator wants done again (a reset) and what was answered on a former log.
        if ref.offset >= tails[tp].starts[ref.topic]:
            tails[tp].answered.add(position.offset, position.timestamp_ms, ref)
