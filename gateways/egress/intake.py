"""One door's consumer: reads result topics and delay topics, waits for what is not due, commits what is finished.

Reads: result topics, deliveries.<tier>. Commits: its own group.
Blocking: the client is used in one thread of its own; the event loop only handles what came. It polls all the time,
also while everything is paused, so the group never holds it to be dead because a destination is slow.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.codec import Position
from contracts.errors import LogUnavailable
from contracts.kafka_config import headers_of, self_watching
from contracts.logs import logger
from contracts.metrics import EGRESS_LAG
from gateways.egress.group import hint
from gateways.egress.ledger import Ledger
from gateways.egress.reading import LogIds, starts_of, translated_errors
from gateways.egress.selecting import Raw
from producers.threads import DaemonPool

Place = tuple[str, int]

# Decision: offsets a partition may run ahead of its oldest unfinished record; bounds what a restart repeats.
MAX_SPAN = 20_000
_POLL_RECORDS = 500
_POLL_S = 0.2
_COMMIT_EVERY_S = 1.0
_LAG_EVERY_S = 5.0
_CALL_TIMEOUT_S = 10.0
_LOOK_TIMEOUT_S = 0.5
# Decision: brokers that are there answer a commit in milliseconds, and have a new coordinator in a few seconds. The
# client itself waits for the session timeout.
_CLOSE_LIMIT_S = 5.0
_FATAL = KafkaError._FATAL  # noqa: SLF001 - the client's public constants
_ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
# Of the group; over when it has let us in.
_NO_MEMBER = frozenset({KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_SESSION_TIMEOUT})
_REFUSALS = _NO_MEMBER | {KafkaError.TOPIC_AUTHORIZATION_FAILED}

_log = logger("egress")


def _need(wanted: Sequence[str], known: Container[str]) -> None:
    missing = next((topic for topic in wanted if topic not in known), None)
    if missing is not None:
        message = f"topic {missing} does not exist (penstock topics create makes it)"
        raise LogUnavailable(message)


class Receiver(Protocol):
    """Who takes the records; called in the event loop. Each `take_` ends in the ledger's `take` or `skip`."""

    def take_result(self, ledger: Ledger, raw: Raw) -> None:
        """Take a record of a result topic."""
        ...

    def take_waiting(self, ledger: Ledger, raw: Raw) -> None:
        """Take a record of a delay topic whose wait is over."""
        ...

    def is_ours(self, raw: Raw) -> bool:
        """Tell whether a record of a delay topic is to be waited for."""
        ...

    async def let_go(self, ledgers: set[Ledger]) -> None:
        """Forget what was taken of partitions that go to somebody else.

        Returns when nothing of them is under way any more, or when that takes too long; what is finished by then is
        committed.
        """
        ...


class Intake:
    """Feeds one door.

    Args:
        door: name of its section, for metrics and logs.
        config: of the consumer.
        topics: result topics.
        waits_s: delay topic -> how long its records wait.
        receiver: takes the records.
        clock: Unix seconds.
        watch: of all its topics; None where the brokers know no ids of topics (the embedded one).
    """

    def __init__(
        self,
        door: str,
        config: dict[str, Any],
        topics: Sequence[str],
        waits_s: dict[str, float],
        receiver: Receiver,
        clock: Callable[[], float] = time.time,
        watch: LogIds | None = None,
    ) -> None:
        self._door = door
        self._config = config
        self._topics = tuple(topics)
        self._waits_s = waits_s
        self._receiver = receiver
        self._clock = clock
        self._watch = watch
        self._thread = DaemonPool(1, f"egress-{door}")
        self._consumer: Consumer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ledgers: dict[Place, Ledger] = {}
        self._due_at_s: dict[Place, float] = {}
        # When something stamped later than now was met in a partition, and up to where records lay there by then.
        self._ahead: dict[Place, tuple[float, int]] = {}
        self._paused: set[Place] = set()
        self._commit_at_s = 0.0
        self._lag_at_s = 0.0
        self._is_answered = False
        # Errors since the last record: the client says the same again and again.
        self._noted: set[int] = set()

    async def open(self) -> None:
        """Join the group.

        Raises:
            LogUnavailable: Kafka is away, or a topic is missing.
        """
        self._loop = asyncio.get_running_loop()
        await self._in_thread(self._open)

    async def poll(self, *, is_full: bool) -> None:
        """Hand over what has come and is due; commit and pause as needed.

        Args:
            is_full: take nothing more for now.

        Raises:
            LogUnavailable: Kafka refuses us, and this client will get no further; or a topic was made anew or cut.
        """
        messages = await self._in_thread(self._turn, is_full)
        rewinds: dict[Place, int] = {}
        for message in messages:
            self._take(message, rewinds)
        if rewinds:
            await self._in_thread(self._rewind, rewinds)

    async def aclose(self) -> None:
        """Commit what is finished and leave the group; of brokers that do not answer it waits some seconds.

        What is not committed is delivered once more, and can be recognised.
        """
        try:
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                if self._consumer is not None:
                    await self._in_thread(self._close)
        except TimeoutError:
            # Its thread goes on with it, and does not outlive the process.
            detail = f"the group was not left within {_CLOSE_LIMIT_S:g} s"
            _log.warning("egress.not_committed", door=self._door, error=detail)
        finally:
            self._thread.close()

    @property
    def is_reachable(self) -> bool:
        """Tell whether the brokers answer, and let us read."""
        return self._is_answered and not self._noted & _REFUSALS

    @property
    def ledgers(self) -> Iterable[Ledger]:
        """Return the ledgers of the partitions that are ours."""
        return self._ledgers.values()

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        with translated_errors():
            return await self._thread.run(function, *args)

    # What follows runs in the thread.

    def _open(self) -> None:
        wanted = [*self._topics, *self._waits_s]
        callbacks = {"on_commit": self._on_commit, "error_cb": self._on_error}
        consumer = Consumer(self._config | callbacks | self_watching())
        try:
            _need(wanted, consumer.list_topics(timeout=_CALL_TIMEOUT_S).topics)
            if self._watch is not None:
                self._watch.start()
            consumer.subscribe(wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        except BaseException:
            consumer.close()
            raise
        self._consumer = consumer
        self._is_answered = True

    def _turn(self, is_full: bool) -> list[KafkaMessage]:
        consumer = self._consumer
        if consumer is None:
            return []
        self._set_pauses(consumer, is_full=is_full)
        if self._clock() >= self._commit_at_s or self._clock() < self._commit_at_s - _COMMIT_EVERY_S:
            self._commit_at_s = self._clock() + _COMMIT_EVERY_S
            self._commit(consumer, self._ledgers.values(), is_last=False)
            self._measure_lag(consumer)
            self._look_for_brokers(consumer)
            self._look_at_topics()
        # `consume` alone would wait for a full batch; this returns with the first record and what is behind it.
        first = consumer.poll(_POLL_S)
        return [] if first is None else [first, *consumer.consume(_POLL_RECORDS - 1, 0)]

    def _set_pauses(self, consumer: Consumer, *, is_full: bool) -> None:
        now_s = self._clock()
        self._due_at_s = {place: at_s for place, at_s in self._due_at_s.items() if at_s > now_s}
        wanted = {
            place
            for place, ledger in list(self._ledgers.items())
            if is_full or place in self._due_at_s or ledger.span > MAX_SPAN
        }
        if resumed := self._paused - wanted:
            consumer.resume([TopicPartition(*place) for place in resumed if place in self._ledgers])
        if paused := wanted - self._paused:
            consumer.pause([TopicPartition(*place) for place in paused])
        self._paused = wanted

    def _rewind(self, rewinds: dict[Place, int]) -> None:
        """Go back to records that are not due, and fetch no more there until they are."""
        consumer = self._consumer
        if consumer is None:
            return
        places = [TopicPartition(*place, offset) for place, offset in rewinds.items() if place in self._ledgers]
        consumer.pause(places)
        self._paused |= {(one.topic, one.partition) for one in places}
        for one in places:
            consumer.seek(one)

    def _commit(self, consumer: Consumer, ledgers: Iterable[Ledger], *, is_last: bool) -> None:
        offers = [(ledger, offset) for ledger in ledgers if (offset := ledger.to_commit()) is not None]
        if not offers:
            return
        offsets = [TopicPartition(one.topic, one.partition, offset, one.log_id) for one, offset in offers]
        try:
            consumer.commit(offsets=offsets, asynchronous=not is_last)  # type: ignore[call-overload]
        except KafkaException as error:
            # They are committed the next time, or what is behind them is delivered again.
            _log.warning("egress.commit_failed", door=self._door, error=str(error.args[0]))
            return
        for ledger, offset in offers:
            ledger.committed(offset)

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        if error is not None and error.code() != KafkaError._NO_OFFSET:  # noqa: SLF001 - the client's public constant
            _log.warning("egress.commit_failed", door=self._door, error=error.str())
        failed = {(one.topic, one.partition) for one in offsets if error is not None or one.error is not None}
        for place in failed:
            ledger = self._ledgers.get(place)
            if ledger is not None:
                ledger.committed(-1)

    def _look_for_brokers(self, consumer: Consumer) -> None:
        """Ask whether brokers that were away are back: where nothing is to be read, no record says so."""
        if not self._is_answered:
            with contextlib.suppress(KafkaException):
                consumer.list_topics(self._topics[0], timeout=_LOOK_TIMEOUT_S)
                self._is_answered = True

    def _look_at_topics(self) -> None:
        if self._watch is None:
            return
        if anew := self._watch.made_anew():
            # A new session reads them from their beginning, and believes no commit of the former logs.
            message = f"made anew, and read from the beginning: {', '.join(sorted(anew))}"
            raise LogUnavailable(message)
        for ledger in self._ledgers.values():
            # Of a slow cluster they come after the assignment.
            ledger.log_id = ledger.log_id or self._watch.ids.get(ledger.topic, "")
        if self._watch.may_read:
            # Where nothing comes, no record says that it may be read again.
            self._noted.discard(KafkaError.TOPIC_AUTHORIZATION_FAILED)

    def _on_error(self, error: KafkaError) -> None:
        # What concerns no partition comes here alone, and not with the records.
        if error.code() == _ALL_BROKERS_DOWN and self._is_answered:
            self._is_answered = False
            _log.warning("egress.log_unavailable", door=self._door, error=error.str())

    def _measure_lag(self, consumer: Consumer) -> None:
        if abs(self._clock() - self._lag_at_s) < _LAG_EVERY_S:
            return
        self._lag_at_s = self._clock()
        lag = 0
        for (topic, partition), ledger in list(self._ledgers.items()):
            found = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            done = ledger.to_commit()
            if found[1] >= 0 and ledger.next_offset is not None:
                lag += max(0, found[1] - (ledger.next_offset if done is None else done))
        EGRESS_LAG.labels(self._door).set(lag)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        ids = self._ids()
        self._noted -= _NO_MEMBER
        for one in partitions:
            place = (one.topic, one.partition)
            self._ledgers[place] = Ledger(*place, ids.get(one.topic, ""))
            self._paused.discard(place)
            self._due_at_s.pop(place, None)
        if ids and (placed := starts_of(consumer, partitions, ids, _CALL_TIMEOUT_S)):
            _log.warning("egress.commits_of_former_log", door=self._door)
            consumer.assign(placed)
        _log.info("egress.partitions_assigned", door=self._door, count=len(partitions))

    def _ids(self) -> Mapping[str, str]:
        """Return the ids that the topics have now: others in the group may have committed under them already."""
        if self._watch is None:
            return {}
        with contextlib.suppress(LogUnavailable):
            self._watch.start()
        return self._watch.ids

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit(consumer, self._let_go(partitions), is_last=True)

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(partitions)
        _log.warning("egress.partitions_lost", door=self._door, count=len(partitions))

    def _let_go(self, partitions: list[TopicPartition]) -> set[Ledger]:
        places = [(one.topic, one.partition) for one in partitions]
        self._paused.difference_update(places)
        ledgers = {ledger for place in places if (ledger := self._ledgers.pop(place, None)) is not None}
        if self._loop is not None and ledgers:
            asyncio.run_coroutine_threadsafe(self._receiver.let_go(ledgers), self._loop).result()
        return ledgers

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._commit(consumer, self._ledgers.values(), is_last=True)
            # It may say once more that it has lost its brokers; why the session has ended is known.
            with contextlib.suppress(LogUnavailable):
                consumer.close()

    # And this in the event loop.

    def _take(self, message: KafkaMessage, rewinds: dict[Place, int]) -> None:
        error = message.error()
        if error is not None:
            self._note(error)
            return
        self._is_answered = True
        self._noted.clear()
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        place = (topic, partition)
        ledger = self._ledgers.get(place)
        if ledger is None or place in rewinds:
            return
        if offset < (ledger.next_offset or 0):
            # The client has begun from the front. A new session looks which log it is, and repeats when in doubt.
            text = f"{topic} [{partition}] was made anew or cut: {offset} comes behind {ledger.next_offset}"
            raise LogUnavailable(text)
        stamp_ms = message.timestamp()[1]
        raw = Raw(Position(topic, partition, offset, stamp_ms), message.key(), message.value(), headers_of(message))
        wait_s = self._waits_s.get(topic)
        if wait_s is None:
            self._receiver.take_result(ledger, raw)
        elif not self._receiver.is_ours(raw):
            ledger.skip(offset)
        elif (due_at_s := self._due(place, raw.position, wait_s)) > self._clock():
            self._due_at_s[place] = due_at_s
            rewinds[place] = offset
        else:
            self._receiver.take_waiting(ledger, raw)

    def _due(self, place: Place, position: Position, wait_s: float) -> float:
        """Return when a record of a delay topic has waited long enough.

        One stamped later than now waits from when it was met, and so do those behind it by then: by its stamp, one of
        the year 9999 would hold up its partition for ever, and many, one after the other, for a tier each.
        """
        stamped_s, now_s = position.timestamp_ms / 1000, self._clock()
        met_s, end = self._ahead.get(place, (0.0, 0))
        if position.offset < end:
            return min(stamped_s, met_s) + wait_s
        if stamped_s > now_s:
            ends = one.get_watermark_offsets(TopicPartition(*place), cached=True) if (one := self._consumer) else None
            self._ahead[place] = now_s, max(position.offset + 1, *(ends or (0,)))
        return min(stamped_s, now_s) + wait_s

    def _note(self, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code == _FATAL:
            # Somebody else uses this instance id, for one: the client will never get anything again.
            self._is_answered = False
            message = f"the consumer of {self._door} is broken: {error.str()}"
            raise LogUnavailable(message)
        if code in _REFUSALS and self._watch is not None:
            self._watch.forget()
        if code not in self._noted:
            self._noted.add(code)
            _log.warning("egress.log_error", door=self._door, error=f"{error.str()}{hint(code, self._config)}")
