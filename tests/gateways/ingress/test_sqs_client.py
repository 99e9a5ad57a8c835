"""The SQS door's client, without a queue."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from contracts.errors import AccessDenied, PenstockError, Retryable, Throttled
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


class Refusing(Queue):
    """Answers with an error."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code

    def receive_message(self, **_: Any) -> dict[str, Any]:
        """Refuse."""
        raise ClientError({"Error": {"Code": self._code, "Message": "no"}}, "ReceiveMessage")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("KMS.AccessDeniedException", AccessDenied),
        ("KMS.DisabledException", AccessDenied),
        ("KmsAccessDenied", AccessDenied),
        ("KMS.ThrottlingException", Throttled),
        ("InternalError", Retryable),
    ],
)
async def test_a_queue_whose_key_may_not_be_used_is_for_the_operator(code: str, kind: type[PenstockError]) -> None:
    client = SqsClient("orders", SqsDoor(kind="sqs", queue_url="https://sqs.us-east-1.amazonaws.com/1/q"))
    client._client = Refusing(code)

    with pytest.raises(PenstockError) as caught:
        await client.receive(1)

    assert type(caught.value) is kind
    client.close()
