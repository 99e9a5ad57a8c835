"""Writes what a redrive or a discard consists of: an event's record and its letter's resolution, both or neither.

In a Kafka transaction, unless told not to: a redrive that is cut off has not happened, and of two at a time the one
that started later stops the other. Writes: event topics, dead-letters. Blocking: up to 15 s a call.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.cli.dlq_letters import Letter
from producers.fenced import FENCED, TakenOver, end_client, fatal_errors
from producers.kafka_client import SILENT, error_of, is_fatal, produce_waiting, producer_config, translate_error
from producers.window import record_bytes

# A transaction that its owner leaves open hides what lies behind it from committed readers for so long.
_LIMIT_S = 15.0
_CLIENT_ID = "penstock-dlq"


class Unit(NamedTuple):
    """What belongs together: the event's record, if any, and then the resolution of its letter.

    Attributes:
        leader: the place of the letter for which the event is put back, when that is another one: without it, nothing
            of this unit is written.
    """

    letter: Letter
    records: tuple[Record, ...]
    leader: str = ""


class Refusal(NamedTuple):
    """A letter whose records could not be written; it stays open.

    Attributes:
        is_put_back: its event is on the log all the same.
    """

    letter: Letter
    error: str
    is_put_back: bool = False


class Writer:
    """Writes units; `start` before the first, `close` at the end.

    Args:
        kafka: where.
        producer: limits and batching.
        name: of the transactions, the same for all who work on one topic; empty = none.
    """

    def __init__(self, kafka: KafkaSettings, producer: ProducerSettings, name: str) -> None:
        self._limit_bytes = producer.max_record_bytes
        self._in_transactions = bool(name)
        config = producer_config(kafka, producer, _CLIENT_ID, _LIMIT_S)
        if name:
            config |= {"transactional.id": name, "transaction.timeout.ms": int(_LIMIT_S * 1000)}
        self._client = Producer(config, logger=SILENT)

    def start(self) -> None:
        """Take over from whoever worked on this topic before; their open transaction is undone.

        Raises:
            LogUnavailable: the brokers do not answer, or do not allow it.
        """
        if not self._in_transactions:
            return
        try:
            self._client.init_transactions(_LIMIT_S)
        except KafkaException as exception:
            message = (
                f"Kafka gives no transaction: {error_of(exception).str()}\n"
                "Does this user have Write on the transactional id? --no-transaction does without."
            )
            raise LogUnavailable(message) from exception

    def close(self) -> None:
        """End the client; nothing is in flight between two calls."""
        end_client(self._client)

    def write(self, units: Sequence[Unit]) -> list[Refusal]:
        """Write some units; return those that could not be.

        Raises:
            TakenOver: another redrive or discard was started; nothing of these has happened.
            LogUnavailable: the outcome is not known, or the client is broken.
        """
        left: list[Unit] = []
        refused: list[Refusal] = []
        for unit in units:
            if error := self._too_large(unit) or _left_with(unit, refused):
                refused.append(Refusal(unit.letter, error))
            else:
                left.append(unit)
        if not self._in_transactions:
            return self._one_by_one(left, refused)
        if left and self._atomically(left):
            # One of them spoils the transaction of all: each in its own.
            return _each(left, refused, self._alone)
        return refused

    def _alone(self, unit: Unit) -> Refusal | None:
        error = self._atomically([unit])
        return Refusal(unit.letter, error) if error else None

    def _too_large(self, unit: Unit) -> str:
        largest = max(record_bytes(record) for record in unit.records)
        return f"record of {largest} bytes, the limit is {self._limit_bytes}" if largest > self._limit_bytes else ""

    def _atomically(self, units: Sequence[Unit]) -> str:
        """Return why they could not be written; empty when they were."""
        errors: list[str] = []
        try:
            with fatal_errors(self._client):
                self._client.begin_transaction()
                for unit in units:
                    for record in unit.records:
                        self._send(record, errors)
                if self._client.flush(_LIMIT_S) == 0 and not errors:
                    self._client.commit_transaction(_LIMIT_S)
                    return ""
                self._client.abort_transaction(_LIMIT_S)
        except KafkaException as exception:
            return self._undo(error_of(exception), errors)
        return errors[0] if errors else "not confirmed in time"

    def _undo(self, error: KafkaError, errors: list[str]) -> str:
        _see_taken_over(error)
        if error.fatal() or not error.txn_requires_abort():
            message = f"the transaction broke, and is undone or complete: {error.str()}; run the command again"
            raise LogUnavailable(message)
        try:
            with fatal_errors(self._client):
                self._client.abort_transaction(_LIMIT_S)
        except KafkaException as exception:
            # In the instant of a take-over brokers tell of it only when they are asked once more.
            _see_taken_over(error_of(exception))
            message = (
                f"the transaction cannot be undone now ({error_of(exception).str()}); Kafka does it in {_LIMIT_S:g} s"
            )
            raise LogUnavailable(message) from exception
        return errors[0] if errors else error.str()

    def _one_by_one(self, units: Sequence[Unit], refused: list[Refusal]) -> list[Refusal]:
        try:
            with fatal_errors(self._client):
                return _each(units, refused, self._one_after_the_other)
        except KafkaException as exception:
            error = error_of(exception).str()
            message = f"the client broke, the last records may be on the log: {error}; run the command again"
            raise LogUnavailable(message) from exception

    def _one_after_the_other(self, unit: Unit) -> Refusal | None:
        done = ""
        for record in unit.records:
            errors: list[str] = []
            self._send(record, errors)
            if self._client.flush(_LIMIT_S) or errors:
                error = done + (errors[0] if errors else "not confirmed; it may be on the log")
                return Refusal(unit.letter, error, is_put_back=bool(done))
            done = "it was put back, but that could not be noted: "
        return None

    def _send(self, record: Record, errors: list[str]) -> None:
        try:
            produce_waiting(self._client, record, None if self._in_transactions else errors, _LIMIT_S)
        except KafkaException as exception:
            if is_fatal(error_of(exception)):
                raise
            errors.append(str(translate_error(error_of(exception), record.topic, record.partition)))


def _each(units: Sequence[Unit], refused: Sequence[Refusal], write: Callable[[Unit], Refusal | None]) -> list[Refusal]:
    """Write units one after the other, none whose leader was refused; return all that were refused."""
    found = list(refused)
    for unit in units:
        error = _left_with(unit, found)
        refusal = Refusal(unit.letter, error) if error else write(unit)
        if refusal is not None:
            found.append(refusal)
    return found


def _left_with(unit: Unit, refused: Sequence[Refusal]) -> str:
    """Return why a unit must stay open with its leader; empty when that was not refused."""
    is_left = any(unit.leader == one.letter.place for one in refused)
    return f"it is about the event of {unit.leader}, and stays open with it" if is_left else ""


def _see_taken_over(error: KafkaError) -> None:
    if error.code() in FENCED:
        message = "another redrive or discard was started on this topic, and has taken over"
        raise TakenOver(message)
