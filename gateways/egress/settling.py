"""Puts aside what could not be delivered: on a delay topic until its next attempt, or on the undelivered topic.

Writes: deliveries.<tier>, undelivered. An item is finished only when the broker has confirmed such a record.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from contracts.codec import Record, delivery_headers, encodable, format_time
from contracts.errors import Busy, Retryable, TooLarge
from contracts.logs import logger
from contracts.metrics import DELIVERIES_PARKED, UNDELIVERED
from contracts.payloads import DeliveryNote
from contracts.topics import Topics
from gateways.egress.ledger import Entry
from gateways.egress.schedule import tier_for

Produce = Callable[[Record], Awaitable[Any]]

_MAX_TEXT_CHARS = 500
_AGAIN_S = 1.0

_log = logger("egress")


class Settler:
    """One door's.

    Args:
        door: name of its section.
        topics: the table.
        produce: returns when the broker has confirmed a record; raises Busy, TooLarge or LogUnavailable.
        app_id: whose door it is.
    """

    def __init__(self, door: str, topics: Topics, produce: Produce, app_id: str) -> None:
        self._door = door
        self._app_id = app_id
        self._topics = topics
        self._produce = produce

    async def park(self, entry: Entry, attempts: int, delay_s: float, reason: str, message: str) -> None:
        """Put an item on the delay topic that waits long enough; waits itself while Kafka is away."""
        tier = tier_for(delay_s)
        note = self._note(entry, "waiting", attempts, reason, message)
        await self._write(self._topics.deliveries(tier), entry, note)
        DELIVERIES_PARKED.labels(self._door, reason).inc()
        _log.info("delivery.parked", **self._fields(entry), reason=reason, error=message, attempts=attempts, tier=tier)

    async def give_up(
        self, entry: Entry, state: Literal["refused", "exhausted"], attempts: int, reason: str, message: str
    ) -> None:
        """Put an item on the undelivered topic; waits itself while Kafka is away."""
        await self._write(self._topics.undelivered, entry, self._note(entry, state, attempts, reason, message))
        UNDELIVERED.labels(self._door, reason).inc()
        _log.warning(
            "delivery.given_up", **self._fields(entry), state=state, reason=reason, error=message, attempts=attempts
        )

    def _note(self, entry: Entry, state: Any, attempts: int, reason: str, message: str) -> DeliveryNote:
        place = entry.item.position
        return DeliveryNote(
            state=state,
            door=self._door,
            destination=encodable(entry.destination)[:_MAX_TEXT_CHARS],
            attempts=attempts,
            reason=reason,
            message=encodable(message)[:_MAX_TEXT_CHARS],
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
            timestamp_ms=place.timestamp_ms,
            first_at_ms=int(entry.first_at_s * 1000),
            at=format_time(datetime.now(UTC)),
            app_id=self._app_id,
        )

    async def _write(self, topic: str, entry: Entry, note: DeliveryNote) -> None:
        item = entry.item
        try:
            await self._confirmed(Record(topic, item.key, item.outcome.value, delivery_headers(item.headers, note)))
        except TooLarge:
            # Our header is what is too much. Without its value it cannot be delivered from here: to the undelivered.
            bare = msgspec.structs.replace(note, is_value_left_out=True, message="")
            bare = msgspec.structs.replace(bare, state="exhausted") if note.state == "waiting" else bare
            headers = delivery_headers(item.headers, bare)
            await self._confirmed(Record(self._topics.undelivered, item.key, b"", headers))

    async def _confirmed(self, record: Record) -> None:
        while True:
            try:
                await self._produce(record)
            except Busy as busy:
                await asyncio.sleep(busy.retry_after_s)
            except Retryable as error:
                _log.warning("delivery.log_unavailable", door=self._door, topic=record.topic, error=str(error))
                await asyncio.sleep(error.retry_after_s or _AGAIN_S)
            else:
                return

    def _fields(self, entry: Entry) -> dict[str, Any]:
        place = entry.item.position
        return {
            "door": self._door,
            "result_id": entry.item.outcome.result_id,
            "event_id": entry.item.outcome.event_id,
            "destination": entry.destination,
            "topic": place.topic,
            "partition": place.partition,
            "offset": place.offset,
        }
