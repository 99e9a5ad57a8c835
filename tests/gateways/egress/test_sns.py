"""The SNS door against moto, with boto3 over HTTP; a queue that is subscribed shows what subscribers get."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from contracts.settings.egress import SnsDoor
from gateways.egress.base import Delivered, Door, Later, Refused
from gateways.egress.sns import Sns
from tests.awslab.front import Fault, Front
from tests.awslab.lab import AwsLab
from tests.awslab.moto import ACCOUNT, REGION, Moto, session
from tests.suites.egress import DoorSuite, Received, result_item


class SnsLab(AwsLab):
    def make(self, **changes: Any) -> Door:
        topics, self.queues = self.moto.client("sns"), self.moto.client("sqs")
        suffix = ".fifo" if changes.pop("is_fifo", False) else ""
        attributes = {"FifoTopic": "true"} if suffix else {}
        arn = topics.create_topic(Name=self.name + suffix, Attributes=attributes)["TopicArn"]
        fifo = {"FifoQueue": "true"} if suffix else {}
        self.url = self.queues.create_queue(QueueName=self.name + suffix, Attributes=fifo)["QueueUrl"]
        queue_arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}{suffix}"
        topics.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)
        return Sns("news", self.settings(SnsDoor, kind="sns", topic_arn=arn, **changes), session())

    def error(self, status: int, code: str) -> Fault:
        text = f"<ErrorResponse><Error><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
        return Fault(status, text.encode(), {"Content-Type": "text/xml"})

    async def messages(self) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await asyncio.to_thread(
                self.queues.receive_message, QueueUrl=self.url, MaxNumberOfMessages=10, AttributeNames=["All"]
            )
            if not answer.get("Messages"):
                return found
            found += answer["Messages"]

    async def received(self) -> list[Received]:
        envelopes = [msgspec.json.decode(one["Body"]) for one in await self.messages()]
        return [
            Received(one["MessageAttributes"]["ce_id"]["Value"], msgspec.json.decode(one["Message"]))
            for one in envelopes
        ]


@pytest.fixture
async def lab(moto: Moto, front: Front) -> AsyncIterator[SnsLab]:
    lab = SnsLab(moto, front)
    await lab.start()
    yield lab
    await lab.aclose()


class TestSns(DoorSuite):
    """The door passes the suite."""


async def test_of_a_batch_that_failed_in_part_only_the_failed_are_for_later(lab: SnsLab) -> None:
    failure = b"<Failed><member><Id>1</Id><Code>InternalError</Code><SenderFault>false</SenderFault></member></Failed>"

    def spoil(body: bytes) -> bytes:
        kept = re.sub(rb"<Failed ?/>|<Failed></Failed>", b"", body)
        return kept.replace(b"</PublishBatchResult>", failure + b"</PublishBatchResult>")

    lab.front.edit = spoil
    verdicts = await lab.door.deliver([lab.item(number) for number in range(3)])

    assert [type(verdict) for verdict in verdicts] == [Delivered, Later, Delivered]


async def test_a_topic_that_takes_more_gets_more(lab: SnsLab) -> None:
    answer = (
        b"<PublishBatchResponse><PublishBatchResult><Failed/><Successful><member><Id>0</Id><MessageId>m</MessageId>"
        b"</member></Successful></PublishBatchResult></PublishBatchResponse>"
    )
    # The emulator knows the usual limit alone.
    lab.front.judge = lambda _: Fault(200, answer, {"Content-Type": "text/xml"})
    door = lab.make(max_message_bytes=1_048_576)
    await door.start()
    try:
        large, too_large = result_item(1, output="x" * 300_000), result_item(2, output="x" * 1_048_576)

        assert [type(one) for one in await door.deliver([large, too_large])] == [Delivered, Refused]
        assert lab.front.calls == 1
    finally:
        await door.aclose()


async def test_a_fifo_topic_gets_the_key_as_group_and_the_id_against_repeats(lab: SnsLab) -> None:
    door = lab.make(is_fifo=True)
    await door.start()
    try:
        assert door.shape.order == "key"
        await door.deliver([lab.item(1)])

        (message,) = await lab.messages()
        assert message["Attributes"]["MessageGroupId"] == "key-1"
        assert message["Attributes"]["MessageDeduplicationId"] == lab.item(1).delivery_id
    finally:
        await door.aclose()
