"""Puts a queue's messages on the log, each until it is settled: the part that every door has in common.

Writes: events.*, batch-jobs, dead-letters.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal

from contracts.codec import Record, dead_letter_headers
from contracts.envelope import digest_id, format_time
from contracts.errors import PenstockError, TooLarge, Undecodable
from contracts.logs import logger
from contracts.metrics import INGRESS_MESSAGES
from contracts.payloads import DeadLetter
from gateways.ingress.base import Message
from gateways.ingress.batch_notices import BatchNotices
from gateways.ingress.envelopes.base import Envelope, Item
from gateways.ingress.mapping import Mapping
from gateways.ingress.text import is_clean
from producers.base import Producer

# accepted: on the log. ignored: it said nothing. dead_letter: on the dead-letter topic. left: only the queue has it.
Settled = Literal["accepted", "ignored", "dead_letter", "left"]
POISON_TYPE = "penstock.ingress.poison"
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0

_log = logger("ingress")


class Intake:
    """Settles the messages of one door; safe for concurrent use by the tasks of one event loop.

    Args:
        name: of the door.
        envelope: how its messages are read.
        mapping: how their events are made.
        producer: started by the caller.
        dead_letters: topic for what cannot be read; None leaves it to the queue.
        notices: which items ask for a batch job instead; None = none do.
        sleep: waits, for tests.
    """

    def __init__(
        self,
        name: str,
        envelope: Envelope,
        mapping: Mapping,
        producer: Producer,
        dead_letters: str | None,
        notices: BatchNotices | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._name = name
        self._envelope = envelope
        self._mapping = mapping
        self._producer = producer
        self._dead_letters = dead_letters
        self._notices = notices
        self._sleep = sleep
        # Set while the log takes what it is given: doors fetch nothing more until then.
        self.log_takes = asyncio.Event()
        self.log_takes.set()

    async def settle(self, message: Message) -> Settled:
        """Return what became of a message; for as long as the log is away it does not return."""
        try:
            records = [self._record(message, item, at) for at, item in enumerate(self._envelope(message))]
            await asyncio.gather(*map(self._produce, records))
        except (Undecodable, TooLarge) as error:
            settled = await self._bury(message, error)
        else:
            settled = "accepted" if records else "ignored"
        INGRESS_MESSAGES.labels(self._name, settled).inc()
        return settled

    def _record(self, message: Message, item: Item, at: int) -> Record:
        job = self._notices.record(item) if self._notices else None
        # Events of one message may have one id, by the settings; at the doors their outcomes are not to be one.
        return job or self._mapping.record(message._replace(id=f"{message.id}#{at}") if at else message, item)

    async def _produce(self, record: Record) -> None:
        """Produce until it is confirmed.

        A message that went back to its queue instead would count one more receipt, and some minutes without a broker
        would move a whole queue into its dead-letter queue.

        Raises:
            TooLarge: the record can never be taken.
        """
        limit_s = _FIRST_WAIT_S
        while True:
            try:
                await self._producer.produce(record)
            except TooLarge:
                self.log_takes.set()
                raise
            except PenstockError as error:
                if not error.retryable:
                    raise
                self._note_away(error)
                await self._sleep(random.uniform(limit_s / 2, limit_s))  # noqa: S311 - jitter
                limit_s = min(2 * limit_s, _LONGEST_WAIT_S)
            else:
                self.log_takes.set()
                return

    def _note_away(self, error: PenstockError) -> None:
        if self.log_takes.is_set():
            _log.warning("ingress.log_away", door=self._name, reason=error.reason, error=str(error))
            self.log_takes.clear()

    async def _bury(self, message: Message, error: PenstockError) -> Settled:
        """Put a message that cannot become an event on the dead-letter topic, if that is wanted and possible."""
        _log.warning("ingress.poison", door=self._name, message_id=message.id, reason=error.reason, error=str(error))
        if self._dead_letters is None:
            return "left"
        try:
            await self._produce(self._letter(message, error))
        except TooLarge:
            return "left"
        return "dead_letter"

    def _letter(self, message: Message, error: PenstockError) -> Record:
        now = format_time(datetime.now(UTC))
        source = self._mapping.source
        event_id = message.id if is_clean(message.id) else digest_id(source, message.body)
        why = DeadLetter(
            reason=error.reason,
            disposition="poison",
            message=str(error),
            attempts=0,
            route="",
            # It never was a record: what names no partition is not put back by `penstock dlq redrive`.
            topic=self._mapping.topic,
            partition=-1,
            offset=-1,
            failed_at=now,
            app_id=f"ingress/{self._name}",
        )
        stand_in = {"specversion": "1.0", "id": event_id, "source": source, "type": POISON_TYPE, "time": now}
        headers: list[tuple[str, bytes | None]] = [(f"ce_{name}", text.encode()) for name, text in stand_in.items()]
        headers += self._mapping.evidence(message, now)
        key = message.group or event_id
        return Record(self._dead_letters or "", key.encode(), message.body, dead_letter_headers(headers, why))
