"""Sends outcomes to an Amazon SQS queue: the record's value, with its CloudEvents attributes as message attributes.

On a FIFO queue the record's key is the message group; SQS drops repeats of a `delivery_id` within five minutes.
Source: Amazon SQS API Reference, SendMessageBatch (checked 2026-11).
"""

from collections.abc import Sequence
from typing import Any

from contracts.settings.egress import SqsDoor
from gateways.egress.aws import Aws, batch_verdicts, in_batches
from gateways.egress.base import Item, Order, PlainDoor, Shape, Verdict
from gateways.egress.messages import group_of, message_attributes, size_bytes
from gateways.egress.rendering import text_of

_BATCH = 10


class Sqs(PlainDoor):
    """One queue."""

    def __init__(self, name: str, settings: SqsDoor, session: Any = None) -> None:
        self._settings = settings
        self._is_fifo = settings.queue_url.endswith(".fifo")
        self._aws = Aws(name, "sqs", settings, session)
        order: Order = "key" if self._is_fifo else "none"
        # The limit of a call is the one of a message; ours counts a little more than the service but for the types.
        self.shape = Shape(_BATCH, settings.max_message_bytes - 1000, settings.linger_s, order)

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Send up to ten messages in one call."""
        return await in_batches(items, self._settings.max_message_bytes, size_bytes, self._send)

    async def _send(self, items: Sequence[Item]) -> list[Verdict]:
        entries = [self._entry(index, item) for index, item in enumerate(items)]
        answer = await self._aws.call("send_message_batch", QueueUrl=self._settings.queue_url, Entries=entries)
        return batch_verdicts(answer, len(items))

    def _entry(self, index: int, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "Id": str(index),
            "MessageBody": text_of(item),
            "MessageAttributes": message_attributes(item),
        }
        if self._is_fifo:
            entry |= {"MessageGroupId": group_of(item), "MessageDeduplicationId": item.delivery_id}
        return entry
