"""What the gateway's readers of result topics have in common: client settings, start offsets, which log a topic is.

Blocking: every function here asks a broker, never longer than the timeout it is given.
"""

import contextlib
import logging
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple, ParamSpec, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
    Uuid,
)
from confluent_kafka.admin import AclOperation, AdminClient, OffsetSpec, TopicDescription

from contracts.errors import LogUnavailable
from contracts.kafka_config import self_watching
from contracts.logs import logger
from contracts.settings import KafkaSettings
from producers.kafka_client import QUEUE_LIMITS, client_config
from producers.threads import NoThread, in_pool

_LOOK_EVERY_S = 5.0
_ANSWER_LIMIT_S = 10.0
_START_LIMIT_S = 3.0
_NOW_LIMIT_S = 5.0
# What brokers before 2.8 say.
_NO_ID = str(Uuid(0, 0))
# Of metadata as confluent-kafka returns them. 2.16 writes a zero byte behind them and stops at the first one in
# reading: what it wrote it reads right, what others wrote may come with something behind it.
_ID = re.compile("[A-Za-z0-9+/_-]{22}")
# No offsets are committed under this name: partitions are assigned by hand.
_GROUP = "penstock-gateway-reader"
# What a reader has besides the connection.
_OF_READERS: dict[str, Any] = QUEUE_LIMITS | {
    # Each has its own.
    "client.id": "",
    "group.id": _GROUP,
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
    # Requests queue behind a waiting fetch on the same connection: metadata would take half a second each.
    "fetch.wait.max.ms": 100,
    "log.connection.close": False,
    # Critical ones only: while brokers are away the client writes dozens of lines a second; we say it once.
    "log_level": 2,
    "logger": logging.getLogger("penstock.gateway.reader"),
}
_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")


def reader_config(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """Return the settings of a consumer that belongs to no group and says when it has reached the end.

    Raises:
        ConfigError: the Kafka settings cannot be used.
    """
    return client_config(kafka) | _OF_READERS | {"client.id": client_id}


@contextlib.contextmanager
def translated_errors() -> Iterator[None]:
    """Turn the client's errors into ours.

    Raises:
        LogUnavailable: Kafka did not answer, or not with what was asked for, or could not be asked.
    """
    try:
        yield
    except (KafkaException, NoThread) as error:
        message = f"Kafka cannot be read: {error.args[0] if error.args else error}"
        raise LogUnavailable(message, retry_after_s=2.0) from error


async def in_thread(
    pool: futures.Executor | None, question: Callable[_Given, _Answer], *args: _Given.args, **kwargs: _Given.kwargs
) -> _Answer:
    """Return what a blocking question to Kafka, or to what was read of it, brings.

    It is asked in a thread of the pool, of the loop's where there is none.

    Raises:
        LogUnavailable: as `translated_errors`, or no thread can be started now; then it is not asked, also not later.
    """
    with translated_errors():
        return await in_pool(pool, question, *args, **kwargs)


def partitions_of(consumer: Consumer, topic: str, timeout_s: float) -> tuple[int, ...]:
    """Return the topic's partitions; none when it does not exist (yet).

    Raises:
        LogUnavailable: no answer in time, or it may not be read.
    """
    with translated_errors():
        found = consumer.list_topics(topic, timeout=timeout_s).topics.get(topic)
    if found is not None and found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        message = f"{topic}: {found.error.str()}"
        raise LogUnavailable(message, retry_after_s=2.0)
    return () if found is None or found.error is not None else tuple(sorted(found.partitions))


def watermarks(consumer: Consumer, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """Return the first offset and the one behind the last.

    Raises:
        LogUnavailable: no answer in time.
    """
    with translated_errors():
        low_high: tuple[int, int] | None = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=timeout_s
        )
    if low_high is None:
        message = f"no offsets of {topic} [{partition}] in time"
        raise LogUnavailable(message, retry_after_s=2.0)
    return low_high


def offset_since(consumer: Consumer, topic: str, partition: int, since_ms: int, timeout_s: float) -> int | None:
    """Return the first offset that is not older than an instant; None when the broker cannot tell, or none is.

    The embedded broker may not answer this request at all; callers then start at the first offset they may.
    """
    try:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, max(0, since_ms))], timeout=timeout_s)
    except KafkaException:
        return None
    return found.offset if found.error is None and found.offset >= 0 else None


def starts_of(
    consumer: Consumer, partitions: Sequence[TopicPartition], ids: Mapping[str, str], timeout_s: float
) -> list[TopicPartition]:
    """Return where assigned partitions are to be read from, when the commits do not say it; none when they do.

    A commit carries the id of the topic it was made on. One of a former log, which may come late, is not believed; what
    else is written there is an operator's tool's.

    Args:
        consumer: of the group.
        partitions: that were assigned to it.
        ids: of the topics.
        timeout_s: for the question.
    """
    commits = consumer.committed(list(partitions), timeout=timeout_s)
    former = {(one.topic, one.partition): _id_in(one) for one in commits if one.offset >= 0}
    anew = {place for place, one in former.items() if one and one != ids.get(place[0], one)}
    places = [(one.topic, one.partition) for one in partitions] if anew else []
    return [TopicPartition(*place, OFFSET_BEGINNING if place in anew else OFFSET_STORED) for place in places]


def _ids_in(found: Mapping[str, TopicDescription]) -> dict[str, str]:
    return {name: str(one.topic_id) for name, one in found.items() if str(one.topic_id) != _NO_ID}


def _id_in(commit: TopicPartition) -> str:
    """Return the id that a commit carries; empty when it carries something else, or nothing."""
    try:
        metadata = commit.metadata or ""
    except UnicodeDecodeError:
        # confluent-kafka 2.16 reads on behind what others wrote.
        return ""
    return metadata if _ID.fullmatch(metadata) else ""


def other_logs(known: Mapping[str, str], now: Mapping[str, str]) -> frozenset[str]:
    """Return the topics that have another id now than was known; one of which no id was known is none of them."""
    return frozenset(topic for topic, log_id in now.items() if known.get(topic, log_id) != log_id)


def _result(name: str, answer: "futures.Future[_Answer]") -> _Answer:
    try:
        return answer.result(_NOW_LIMIT_S)
    except futures.TimeoutError as error:
        message = f"{name}: no answer in time"
        raise LogUnavailable(message, retry_after_s=2.0) from error


# All who ask the same brokers ask with one client: each is threads, and connections. It goes with the last of them.
# Some of them live as long as the process: once it has lost all its brokers, all go on with another one.
_clients: weakref.WeakValueDictionary[frozenset[tuple[str, Any]], AdminClient] = weakref.WeakValueDictionary()
_making = threading.Lock()


def _client_of(config: Mapping[str, Any]) -> AdminClient:
    connection = {name: value for name, value in config.items() if name not in _OF_READERS}
    key = frozenset(connection.items())
    with _making:
        client = _clients.get(key)
        # One without work is false.
        if client is None:
            client = AdminClient({**connection, "client.id": "penstock-log-ids", "log_level": 0} | self_watching())
            _clients[key] = client
    return client


def _give_up(client: AdminClient) -> None:
    with _making:
        for key in [key for key, one in _clients.items() if one is client]:
            del _clients[key]


class Present(NamedTuple):
    """What the brokers say of the logs at one moment.

    Attributes:
        ids: by topic.
        ends: by topic and partition, the offset behind the last record that can be read.
    """

    ids: Mapping[str, str]
    ends: Mapping[tuple[str, int], int]


class LogIds:
    """Asks the brokers which log each topic's name stands for, whether it may be read, and where it ends.

    Kafka gives a topic that is deleted and made anew another id. A reader that goes by the name alone goes on at its
    offset, and passes over what lies below it in the new log. `now` and `present` may be asked on any thread,
    everything else belongs to one.

    Args:
        config: of the connection; what a reader has besides is left out. The client comes with the first question.
        topics: all but `now` and `present` are about these.
        known: ids of an earlier process.
        clock: monotonic seconds.

    Attributes:
        ids: by topic, as last heard; none where the brokers know none (the embedded one, before 2.8).
        may_read: whether all topics were there and could be read, when `made_anew` last heard of them.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        known: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._topics = tuple(topics)
        self._clock = clock
        self._made: AdminClient | None = None
        self._asked: Mapping[str, futures.Future[TopicDescription]] = {}
        self._ask_at_s = float("-inf")
        self._is_told = True
        # Replaced, never changed: others may read it.
        self.ids: Mapping[str, str] = dict(known or {})
        self.may_read = False

    def start(self) -> None:
        """Ask for the ids and wait for them, some seconds; of a topic that is not told of, an earlier one stays.

        Raises:
            LogUnavailable: no broker answers.
        """
        self._ask_anew()
        futures.wait(self._asked.values(), _START_LIMIT_S if self._is_told else 0.0)
        found = self._answers()
        self._is_told = bool(found)
        if not found:
            self._find_broker()
        self.ids = {**self.ids, **_ids_in(found)}

    def _find_broker(self) -> None:
        """Return when a broker answers: the embedded one does, and describes no topics."""
        try:
            self._client.list_topics(timeout=_ANSWER_LIMIT_S)
        except KafkaException as error:
            message = f"Kafka does not answer: {error.args[0].str()}"
            raise LogUnavailable(message, retry_after_s=2.0) from error

    def made_anew(self) -> frozenset[str]:
        """Return the topics that have another log than was heard before, each time once; does not wait.

        A question goes out every few seconds, and its answer is told by a later call.
        """
        if not self._asked:
            if self._clock() >= self._ask_at_s:
                self._ask_anew()
            return frozenset()
        if not all(answer.done() for answer in self._asked.values()):
            return frozenset()
        found = self._answers()
        # A slow cluster, not one that never tells: the next start waits for its answer, and until then these ids serve.
        self._is_told = self._is_told or bool(found)
        may_read = [AclOperation.READ in (one.authorized_operations or ()) for one in found.values()]
        self.may_read = len(found) == len(self._topics) and all(may_read)
        ids = _ids_in(found)
        anew = other_logs(self.ids, ids)
        self.ids = {**self.ids, **ids}
        return anew

    def forget(self) -> None:
        """Take no answer to a question that was asked before now."""
        self._asked, self.may_read = {}, False

    def now(self, topics: Sequence[str]) -> dict[str, str]:
        """Return the ids of this moment; of a topic that does not exist none. Blocking, some seconds at most.

        Raises:
            LogUnavailable: no answer.
        """
        return _ids_in(self._described(topics))

    def present(self, topics: Sequence[str], *, has_ids: bool) -> Present:
        """Return the ids of this moment, and the ends of a moment later. Blocking, some seconds at most.

        Args:
            topics: whose; of one that does not exist nothing is said.
            has_ids: False for the embedded broker, which would not answer a question for them.

        Raises:
            LogUnavailable: no answer, or not of every partition.
        """
        described = self._described(topics) if has_ids else {}
        partitions = {(name, part.id) for name, one in described.items() for part in one.partitions}
        if not has_ids:
            with translated_errors():
                found = self._client.list_topics(timeout=_NOW_LIMIT_S).topics
            partitions = {(name, number) for name in topics if name in found for number in found[name].partitions}
        return Present(_ids_in(described), self._ends(partitions) if partitions else {})

    def _described(self, topics: Sequence[str]) -> dict[str, TopicDescription]:
        found = {}
        with translated_errors():
            for name, answer in self._ask(topics, _NOW_LIMIT_S).items():
                try:
                    found[name] = _result(name, answer)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                        raise
        return found

    def _ends(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        # In front of what a transaction that is open has written: nobody reads that yet.
        with translated_errors():
            answers = self._client.list_offsets(
                {TopicPartition(*place): OffsetSpec.latest() for place in partitions},  # type: ignore[no-untyped-call]
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_NOW_LIMIT_S,
            )
            ends = ((place, _result(place.topic, answer)) for place, answer in answers.items())
            return {(place.topic, place.partition): end.offset for place, end in ends}

    @property
    def _client(self) -> AdminClient:
        self._made = _client_of(self._config)
        return self._made

    def _ask_anew(self) -> None:
        self._ask_at_s = self._clock() + _LOOK_EVERY_S
        self._asked = self._ask(self._topics, _ANSWER_LIMIT_S)

    def _ask(self, topics: Sequence[str], limit_s: float) -> Mapping[str, "futures.Future[TopicDescription]"]:
        # While brokers are away it keeps an error for every attempt to connect, some 20 a second, until it is polled.
        client = self._client
        try:
            client.poll(0)
        except LogUnavailable as error:
            logger("gateway").warning("log_ids.log_unavailable", error=str(error))
            _give_up(client)
            client = self._client
        return client.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=limit_s
        )

    def _answers(self) -> dict[str, TopicDescription]:
        asked, self._asked = self._asked, {}
        return {name: answer.result() for name, answer in asked.items() if answer.done() and answer.exception() is None}
