"""Publishes outcomes to an Amazon SNS topic: the record's value, with its CloudEvents attributes as message attributes.

On a FIFO topic the record's key is the message group; SNS drops repeats of a `delivery_id` within five minutes.
Source: Amazon SNS API Reference, PublishBatch (checked 2026-11).
"""

from collections.abc import Sequence
from typing import Any

from contracts.settings.egress import SnsDoor
from gateways.egress.aws import Aws, batch_verdicts, in_batches
from gateways.egress.base import Item, Order, PlainDoor, Shape, Verdict
from gateways.egress.messages import group_of, message_attributes, size_bytes
from gateways.egress.rendering import text_of

_BATCH = 10


class Sns(PlainDoor):
    """One topic."""

    def __init__(self, name: str, settings: SnsDoor, session: Any = None) -> None:
        self._settings = settings
        self._is_fifo = settings.topic_arn.endswith(".fifo")
        self._aws = Aws(name, "sns", settings, session)
        order: Order = "key" if self._is_fifo else "none"
        # The limit of a call is the one of a message. Our own count of an item is larger than the service's but for the
        # attributes' types.
        self.shape = Shape(_BATCH, settings.max_message_bytes - 2048, settings.linger_s, order)

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Publish up to ten messages in one call."""
        return await in_batches(items, self._settings.max_message_bytes, size_bytes, self._publish)

    async def _publish(self, items: Sequence[Item]) -> list[Verdict]:
        entries = [self._entry(index, item) for index, item in enumerate(items)]
        answer = await self._aws.call(
            "publish_batch", TopicArn=self._settings.topic_arn, PublishBatchRequestEntries=entries
        )
        return batch_verdicts(answer, len(items))

    def _entry(self, index: int, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "Id": str(index),
            "Message": text_of(item),
            "MessageAttributes": message_attributes(item),
        }
        if self._is_fifo:
            entry |= {"MessageGroupId": group_of(item), "MessageDeduplicationId": item.delivery_id}
        return entry
