"""Copies a terminal record to the gateway instance that an event names in its `replyto`.

Writes: replies. Only after the terminal record is confirmed, which stays the outcome and the journal: a crash in
between pays nothing twice and loses no outcome, only the copy, and whoever waits for that looks the outcome up.
"""

import asyncio

from contracts.codec import Record
from contracts.envelope import REPLY_TO, Event, reply_address
from contracts.errors import PenstockError
from contracts.metrics import REPLIES_SENT
from producers.base import Producer


class Replies:
    """Sends copies without making anybody wait; knows addresses, not who is behind them.

    Args:
        producer: of the outcomes.
        topic: of the replies.
    """

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._under_way: set[asyncio.Task[None]] = set()

    def copy(self, event: Event, outcome: Record) -> None:
        """Send a copy where the event says; nothing when it says nothing."""
        text = event.extensions.get(REPLY_TO)
        if text is None:
            return
        address = reply_address(text)
        if address is None:
            REPLIES_SENT.labels("bad_address").inc()
            return
        # Invariant: copies never take the room that outcomes need.
        if self._producer.is_full:
            REPLIES_SENT.labels("failed").inc()
            return
        headers = (*outcome.headers, (f"ce_{REPLY_TO}", text.encode()))
        sending = asyncio.create_task(self._send(Record(self._topic, None, outcome.value, headers, address.partition)))
        self._under_way.add(sending)
        sending.add_done_callback(self._under_way.discard)

    async def _send(self, record: Record) -> None:
        try:
            await self._producer.produce(record)
        except PenstockError:
            REPLIES_SENT.labels("failed").inc()
        else:
            REPLIES_SENT.labels("sent").inc()
