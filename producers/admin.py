"""Looks at topics and makes missing ones; lets a program without an event loop wait for the brokers.

Blocking: every method, up to the limit given to the constructor per request; for command lines, not for event loops.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec

from contracts.errors import ConfigError, LogUnavailable, PenstockError
from contracts.logs import logger
from contracts.settings import KafkaSettings, Settings
from contracts.signals import killable
from producers.kafka_client import IsStopped, client_config, error_of, made, unless_stopped
from producers.topic_plan import Found, Wanted, drifts, wanted_topics

_POLL_INTERVAL_S = 0.2
_HALF_BITS = 64
# Slack for the answer of a request whose limit the broker counts itself.
_ANSWER_SLACK_S = 5.0
# Between two looks at brokers that are away, as a worker does it; and how long one look lasts: longer each time, up to
# what a worker waits, since a large cluster far away may never answer in less. A stop waits for none.
_AGAIN_S = 2.0
_LOOK_S, _LOOK_LIMIT_S = 0.5, 5.0
# Of one client, some 30 s: as long may a connection take.
_LOOKS = 8
# No attempt that Kafka lets fail lasts longer; work that did was going on, and its end is news.
_ATTEMPT_S = 60.0
# What is wrong lies with our settings most likely: the password, the certificates, the host's name.
_TELLING_CODES = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE})  # noqa: SLF001 - confluent-kafka names its own codes so
_AFTER = " (after "
_CONFIGURATION_CODES = frozenset(
    {
        KafkaError.INVALID_REPLICATION_FACTOR,
        KafkaError.INVALID_PARTITIONS,
        KafkaError.INVALID_CONFIG,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    }
)


class Heard:
    """What a client says about its connections; of that only what is the same at every attempt.

    Whoever waits for the brokers tells each text once.
    """

    def __init__(self) -> None:
        self.why = ""

    def __call__(self, error: KafkaError) -> None:
        """Take note of an error."""
        if error.code() in _TELLING_CODES:
            self.why = error.str().partition(_AFTER)[0]


class TopicAdmin:
    """Topic administration of one cluster.

    Args:
        kafka: which.
        timeout_s: limit of one request.

    Raises:
        LogUnavailable: the threads of its client cannot be started now.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float = 10.0) -> None:
        self._servers = ",".join(kafka.bootstrap_servers)
        self._timeout_s = timeout_s
        # What goes wrong is told by our errors, with what to do about it.
        config: dict[str, Any] = {**client_config(kafka), "client.id": "penstock-topics", "log_level": 0}
        # Not a method: a client that is part of a cycle keeps its threads until the collector comes.
        self._heard = config["error_cb"] = Heard()
        self._client = made(lambda: AdminClient(config))

    def wait(self, limit_s: float) -> None:
        """Return as soon as a broker answers.

        Raises:
            LogUnavailable: none did within the limit.
        """
        end_s = time.monotonic() + limit_s
        while True:
            # It keeps an error for every attempt to connect, some 20 a second, until it is polled.
            self._client.poll(0)
            try:
                with killable():
                    self._client.list_topics(timeout=max(0.1, min(self._timeout_s, end_s - time.monotonic())))
            except KafkaException as error:
                if time.monotonic() >= end_s:
                    raise self._unreachable(error) from error
                time.sleep(_POLL_INTERVAL_S)
            else:
                self._heard.why = ""
                return

    def find(self, names: Iterable[str], *, with_config: bool = True) -> dict[str, Found]:
        """Return those of the topics that exist.

        Raises:
            LogUnavailable: no broker answers.
        """
        wanted = frozenset(names)
        try:
            # All of them: asking for one by name would make it where topics appear on first use.
            with killable():
                topics = self._client.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            raise self._unreachable(error) from error
        present = {name: topic for name, topic in topics.items() if name in wanted and topic.error is None}
        configs = self._configs(list(present)) if with_config else {}
        return {
            name: Found(
                name,
                len(topic.partitions),
                min((len(partition.replicas) for partition in topic.partitions.values()), default=0),
                configs.get(name),
                tuple(number for number, partition in topic.partitions.items() if partition.leader < 0),
                {number: len(partition.isrs) for number, partition in topic.partitions.items()},
            )
            for name, topic in present.items()
        }

    def ids(self, names: Iterable[str]) -> dict[str, int]:
        """Return Kafka's ids of topics, each as a number: one that is made anew under its name has another.

        Without topics that are not there or may not be described, and without all of them on a broker before Kafka 2.8,
        which has no ids, and where no broker answers.
        """
        wanted = sorted(names)
        if not wanted:
            return {}
        # As in `wait`.
        self._client.poll(0)
        futures = self._client.describe_topics(TopicCollection(wanted), request_timeout=self._timeout_s)
        found: dict[str, int] = {}
        for name, future in futures.items():
            try:
                uuid = future.result(self._timeout_s + _ANSWER_SLACK_S).topic_id
            except (KafkaException, TimeoutError):
                continue
            high, low = uuid.get_most_significant_bits(), uuid.get_least_significant_bits()
            found[name] = (high % 2**_HALF_BITS << _HALF_BITS) + low % 2**_HALF_BITS
        return {name: number for name, number in found.items() if number}

    def oldest(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
        """Return offset and timestamp (ms) of the first record with a timestamp, by topic and partition.

        Without partitions that are empty or may not be described, and without all of them where no broker answers.
        """
        return self._offsets(places, OffsetSpec.for_timestamp(0))

    def ends(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return where partitions end, open transactions included; as `oldest` without those that cannot be told."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call] # confluent-kafka's own
        return {place: offset for place, (offset, _) in self._offsets(places, latest).items()}

    def _offsets(self, places: Iterable[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], tuple[int, int]]:
        asked = {TopicPartition(*place): spec for place in places}
        if not asked:
            return {}
        # As in `wait`.
        self._client.poll(0)
        futures = self._client.list_offsets(asked, request_timeout=self._timeout_s)
        found: dict[tuple[str, int], tuple[int, int]] = {}
        for place, future in futures.items():
            with contextlib.suppress(KafkaException, TimeoutError):
                told = future.result(self._timeout_s + _ANSWER_SLACK_S)
                if told.offset >= 0:
                    found[place.topic, place.partition] = told.offset, told.timestamp
        return found

    def create(self, wanted: Iterable[Wanted]) -> None:
        """Make topics; one that somebody else makes meanwhile is no error. Returns once every partition has a leader.

        Raises:
            ConfigError: the cluster refuses the number of replicas, a name or a setting.
            LogUnavailable: not done in time, or not allowed.
        """
        new = [NewTopic(w.topic.name, w.partitions, w.replication_factor, config=dict(w.config)) for w in wanted]
        if not new:
            return
        futures = self._client.create_topics(
            new, operation_timeout=self._timeout_s, request_timeout=self._timeout_s + _ANSWER_SLACK_S
        )
        for name, future in futures.items():
            try:
                future.result(self._timeout_s + 2 * _ANSWER_SLACK_S)
            except KafkaException as error:
                if error_of(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise _translate(name, error) from error
        self._wait_for_leaders([topic.topic for topic in new])

    def _wait_for_leaders(self, names: list[str]) -> None:
        end_s = time.monotonic() + self._timeout_s
        while time.monotonic() < end_s:
            topics = self._client.list_topics(timeout=self._timeout_s).topics
            parts = [part for name in names if name in topics for part in topics[name].partitions.values()]
            if all(name in topics for name in names) and all(part.leader >= 0 for part in parts):
                return
            time.sleep(_POLL_INTERVAL_S)
        message = (
            f"topics {', '.join(names)} were made and have no leaders after {self._timeout_s:g} s, "
            "or this user may not Describe them"
        )
        raise LogUnavailable(message)

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        """Return the settings of topics; without those that may not be read."""
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        if not resources:
            return {}
        found: dict[str, dict[str, str]] = {}
        futures = self._client.describe_configs(resources, request_timeout=self._timeout_s)
        for resource, future in futures.items():
            try:
                entries: dict[str, Any] = future.result(self._timeout_s + _ANSWER_SLACK_S)
            except (KafkaException, TimeoutError):
                # Missing rights, or no answer: the caller shows it as drift, since nothing can be promised about it.
                continue
            found[resource.name] = {name: entry.value for name, entry in entries.items() if entry.value is not None}
        return found

    def _unreachable(self, error: KafkaException) -> LogUnavailable:
        # Errors are told when a client is polled; of the question itself is known only that it failed.
        self._client.poll(0)
        return LogUnavailable(f"no Kafka broker answers at {self._servers}: {self._heard.why or error_of(error).str()}")


def differing(settings: Settings, names: Collection[str], is_stopped: IsStopped) -> list[str]:
    """Return, in words, how topics of ours differ from what they should be in a way that matters.

    Raises:
        LogUnavailable: no broker answers.
        Stopped: a stop came first.
    """
    if settings.kafka.embedded:
        return []
    wanted, admin = wanted_topics(settings), TopicAdmin(settings.kafka)
    found = unless_stopped(lambda: admin.find(want.topic.name for want in wanted), is_stopped)
    return [f"{one.topic}: {one.text}" for one in drifts(wanted, found, settings) if one.topic in names]


class Patience:
    """Does what needs Kafka, and begins it anew while Kafka is away.

    Args:
        kafka: which.
        program: its name in the log lines.
        stop: ends the waiting; the work itself looks at it too.
    """

    def __init__(self, kafka: KafkaSettings, program: str, stop: threading.Event) -> None:
        self._kafka = kafka
        self._log = logger(program)
        self._stop = stop
        self._admin: TopicAdmin | None = None
        self._look_s = _LOOK_S
        self._failed_looks = 0
        self._told = ""
        self.waits_for = ""

    @property
    def reasons(self) -> list[str]:
        """Return what is waited for, as a reason not to be ready; empty when the work goes on."""
        return [f"{LogUnavailable.reason}: {self.waits_for}"] if self.waits_for else []

    def run(self, work: Callable[[], None]) -> None:
        """Return when the work returns, or when told to stop; whatever else it raises ends this too."""
        while not self._stop.is_set():
            try:
                self._look()
                self.waits_for = ""
                self._work(work)
            except LogUnavailable as error:
                self._rest(str(error))
            else:
                return

    def _work(self, work: Callable[[], None]) -> None:
        began_s = time.monotonic()
        try:
            work()
        finally:
            if time.monotonic() - began_s > _ATTEMPT_S:
                self._told = ""

    def _look(self) -> None:
        """Ask for a broker before anything that would wait longer for one than a signal can."""
        if self._admin is None:
            self._admin = TopicAdmin(self._kafka, _LOOK_LIMIT_S)
        admin, look_s = self._admin, self._look_s
        try:
            unless_stopped(lambda: admin.wait(look_s), self._stop.is_set)
        except LogUnavailable:
            self._look_s = min(2 * self._look_s, _LOOK_LIMIT_S)
            self._failed_looks += 1
            if self._failed_looks % _LOOKS == 0:
                # One that has lost all its brokers looks for none, and does not say so: see self_watching.
                self._admin = None
            raise

    def _rest(self, reason: str) -> None:
        if not self._stop.is_set():
            # The same again is no news: brokers may be away for hours.
            if reason != self._told:
                self._log.warning("kafka.waiting", problems=[reason], wait_s=_AGAIN_S)
            self.waits_for = self._told = reason
            self._stop.wait(_AGAIN_S)


def _translate(name: str, exception: KafkaException) -> PenstockError:
    error = error_of(exception)
    text = f"topic {name} cannot be made: {error.str()}"
    return ConfigError(text) if error.code() in _CONFIGURATION_CODES else LogUnavailable(text)
