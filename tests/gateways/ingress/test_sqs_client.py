"""The SQS door's client, without a queue."""

from typing import Any

import pytest

from contracts.errors import Retryable
from contracts.settings.ingress import SqsDoor
from gateways.ingress.sqs_client import SqsClient
from tests.support import no_threads


class Queue:
    """Counts who asks it."""

    def __init__(self) -> None:
        self.asked = 0

    def receive_message(self, **_: Any) -> dict[str, Any]:
        """Have nothing."""
        self.asked += 1
        return {}

    def close(self) -> None: ...


async def test_messages_that_no_thread_can_receive_are_not_received_by_nobody_later() -> None:
    """They would be hidden from all others for as long as a message may be worked on."""
    client, queue = (
        SqsClient("orders", SqsDoor(kind="sqs", queue_url="https://sqs.us-east-1.amazonaws.com/1/q")),
        Queue(),
    )
    client._client = queue
    with no_threads(), pytest.raises(Retryable, match="can't start new thread"):
        await client.receive(1)

    assert await client.receive(1) == []
    assert queue.asked == 1

    client.close()
