"""Writes records under a name that only one process at a time can hold: whoever takes it over knows what is on the log.

A killed writer's last records may still be on their way when its successor looks. Kafka's transactions end that: after
`take_over` nothing of an earlier holder can arrive any more, and what it had not committed has not happened. Workers
and consumers of results read what is committed, and so must the successor.

Blocking: every call, up to 30 s, and some 2 s after a stop. See: docs/adr/0014.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from confluent_kafka import KafkaError, KafkaException, Producer

from contracts.codec import Record
from contracts.errors import LogUnavailable, PenstockError
from contracts.settings import KafkaSettings, ProducerSettings
from producers.kafka_client import SILENT, IsStopped, Stopped, error_of, made, produce_waiting, producer_config

_LIMIT_S = 30.0
# A stop does not wait longer for brokers that do not answer.
_STEP_S = 1.0
# What lies behind an open transaction is hidden from committed readers, the workers, for at most so long.
_OPEN_LIMIT_S = 15.0
# What a transaction ends with when another process has begun one under its name.
FENCED = frozenset(
    {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}  # noqa: SLF001 - so named
)
# With which brokers answer what is under way in the instant of a take-over, before they know it themselves (Kafka 4.1).
_NAMELESS = frozenset({KafkaError.UNKNOWN, KafkaError.INVALID_TXN_STATE})


class TakenOver(PenstockError):
    """Raise when another process has taken the name over; it goes on with the work."""

    reason = "taken_over"


@contextlib.contextmanager
def fatal_errors(client: Producer) -> Iterator[None]:
    """Raise a fatal error of a client as the KafkaException that it is.

    confluent-kafka 2.16 raises it and runs into the next one before it is told: that is a SystemError. And a record
    that comes between the error and its telling is refused with a name for all of them: the requests of transactions,
    where there are any, tell which one it was, at any time.
    """
    try:
        yield
    except SystemError as exception:
        if isinstance(exception.__cause__, KafkaException):
            raise exception.__cause__ from None
        raise
    except KafkaException as exception:
        if error_of(exception).code() == KafkaError._FATAL:  # noqa: SLF001 - so named
            _raise_fatal_of(client)
        raise


def _raise_fatal_of(client: Producer) -> None:
    try:
        client.begin_transaction()
    except KafkaException as exception:
        # Else it has none: no transactions, which is not what was wrong.
        if error_of(exception).fatal():
            raise


def end_client(client: Producer) -> None:
    """End a client that has nothing in flight."""
    # One that had a fatal error raises it once more.
    with contextlib.suppress(KafkaException, SystemError):
        client.purge()
        client.flush(0)


class FencedProducer:
    """Writes groups of records, each confirmed as a whole.

    On the embedded broker, which has no transactions, two holders of a name do not stop each other.

    Args:
        kafka: where.
        producer: limits and batching.
        name: of the work; the next process that takes it over ends this one.
        is_stopped: gives up what brokers do not answer soon when it says so.

    Raises:
        LogUnavailable: the threads of its client cannot be started now.
    """

    def __init__(
        self, kafka: KafkaSettings, producer: ProducerSettings, name: str, is_stopped: IsStopped = lambda: False
    ) -> None:
        self._name = name
        self._servers = ",".join(kafka.bootstrap_servers)
        self._is_stopped = is_stopped
        self._is_fenced = not kafka.embedded
        config = producer_config(kafka, producer, "penstock-batch", _OPEN_LIMIT_S)
        if self._is_fenced:
            config |= {"transactional.id": name, "transaction.timeout.ms": int(_OPEN_LIMIT_S * 1000)}
        self._client = made(lambda: Producer(config, logger=SILENT))

    def take_over(self) -> None:
        """Return when nothing of an earlier holder can reach the log any more.

        Raises:
            LogUnavailable: the brokers do not answer, or do not allow it.
            Stopped: a stop came first.
        """
        if not self._is_fenced:
            return
        try:
            self._in_steps(self._client.init_transactions)
        except KafkaException as exception:
            self._see_brokers()
            message = (
                f"Kafka gives no transaction under {self._name}: {error_of(exception).str()}\n"
                "Does this user have Write on that transactional id?"
            )
            raise LogUnavailable(message) from exception

    def _in_steps(self, request: Callable[[float], object]) -> None:
        """Make a request of transactions that takes its time limit, seconds; for 30 s in all, or until a stop."""
        end_s = time.monotonic() + _LIMIT_S
        while True:
            try:
                request(_STEP_S)
            except KafkaException as exception:
                # After a time-out the same request goes on with what it has begun.
                if not error_of(exception).retriable() or time.monotonic() >= end_s:
                    raise
                self._see_stop()
            else:
                return

    def _see_brokers(self) -> None:
        """Tell brokers that do not answer from those that refuse.

        Raises:
            LogUnavailable: none answers.
        """
        try:
            self._client.list_topics(timeout=_STEP_S)
        except KafkaException as exception:
            message = f"Kafka at {self._servers} does not answer: {error_of(exception).str()}"
            raise LogUnavailable(message) from exception

    def _flush(self) -> int:
        """Return how many records are still not confirmed after 30 s; none as soon as all are."""
        end_s = time.monotonic() + _LIMIT_S
        while (left := self._client.flush(_STEP_S)) and time.monotonic() < end_s:
            self._see_stop()
        return left

    def _see_stop(self) -> None:
        if self._is_stopped():
            message = f"stopped while Kafka did not answer {self._name}"
            raise Stopped(message)

    def write(self, records: Sequence[Record]) -> None:
        """Return when all records are confirmed.

        Raises:
            TakenOver: another process works under this name.
            LogUnavailable: not known whether they are on the log. Take over again, and look.
            Stopped: the same, because a stop came first.
        """
        errors: list[str] = []
        try:
            with fatal_errors(self._client):
                left = self._written(records, errors)
        except KafkaException as exception:
            raise self._translated(self._named(error_of(exception))) from exception
        if left or errors:
            message = errors[0] if errors else f"{left} records were not confirmed in {_LIMIT_S:g} s"
            raise LogUnavailable(message)

    def _written(self, records: Sequence[Record], errors: list[str]) -> int:
        """Return how many records are still not confirmed; those that are, are committed when all are."""
        if self._is_fenced:
            self._client.begin_transaction()
        for record in records:
            self._send(record, errors)
        left = self._flush()
        if left == 0 and not errors and self._is_fenced:
            self._in_steps(self._client.commit_transaction)
        return left

    def close(self) -> None:
        """End the client; nothing is in flight between two calls."""
        end_client(self._client)

    def _send(self, record: Record, errors: list[str]) -> None:
        produce_waiting(self._client, record, None if self._is_fenced else errors, _LIMIT_S, self._see_stop)
        self._client.poll(0)

    def _named(self, error: KafkaError) -> KafkaError:
        """Return that a take-over was behind an error without a name, where the brokers say so when asked once more."""
        if error.code() in _NAMELESS and error.txn_requires_abort():
            try:
                with fatal_errors(self._client):
                    self._in_steps(self._client.abort_transaction)
            except KafkaException as exception:
                later = error_of(exception)
                return later if later.code() in FENCED else error
        return error

    def _translated(self, error: KafkaError) -> PenstockError:
        if error.code() in FENCED:
            return TakenOver(f"another process has taken over {self._name}, and goes on with it")
        return LogUnavailable(f"records were not confirmed ({error.str()}); they may be on the log")
