"""The SQS door against moto, with boto3 over HTTP."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from contracts.repetition import ANSWERED, REPLAY
from contracts.settings.egress import SqsDoor
from gateways.egress.base import Delivered, Door, Later, Refused
from gateways.egress.sqs import Sqs
from tests.awslab.front import Fault, Front
from tests.awslab.lab import AwsLab
from tests.awslab.moto import Moto, session
from tests.suites.egress import DoorSuite, Received, result_item


class SqsLab(AwsLab):
    def make(self, **changes: Any) -> Door:
        self.queues = self.moto.client("sqs")
        suffix = ".fifo" if changes.pop("is_fifo", False) else ""
        attributes = {"FifoQueue": "true"} if suffix else {}
        url = self.queues.create_queue(QueueName=self.name + suffix, Attributes=attributes)["QueueUrl"]
        path = url.removeprefix(self.moto.url)
        self.url = url
        settings = self.settings(SqsDoor, kind="sqs", queue_url=f"{self.front.url}{path}", **changes)
        return Sqs("queue", settings, session())

    def error(self, status: int, code: str) -> Fault:
        body = msgspec.json.encode({"__type": f"com.amazonaws.sqs#{code}", "message": "no"})
        return Fault(status, body, {"Content-Type": "application/x-amz-json-1.0"})

    async def messages(self) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await asyncio.to_thread(
                self.queues.receive_message,
                QueueUrl=self.url,
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
            )
            if not answer.get("Messages"):
                return found
            found += answer["Messages"]

    async def received(self) -> list[Received]:
        return [
            Received(one["MessageAttributes"]["ce_id"]["StringValue"], msgspec.json.decode(one["Body"]))
            for one in await self.messages()
        ]


@pytest.fixture
async def lab(moto: Moto, front: Front) -> AsyncIterator[SqsLab]:
    lab = SqsLab(moto, front)
    await lab.start()
    yield lab
    await lab.aclose()


class TestSqs(DoorSuite):
    """The door passes the suite."""


async def test_the_attributes_say_what_the_headers_say(lab: SqsLab) -> None:
    await lab.door.deliver([lab.item(1)])

    (message,) = await lab.messages()
    attributes = {name: part["StringValue"] for name, part in message["MessageAttributes"].items()}
    assert attributes == {
        "ce_specversion": "1.0",
        "ce_id": lab.item(1).outcome.result_id,
        "ce_source": "penstock/penstock",
        "ce_type": "penstock.result.v1",
        "ce_time": "2026-01-01T00:00:00.000Z",
        "ce_subject": "s1",
        "ce_eventid": "e1",
        "ce_eventsource": "crm",
        "ce_eventtype": "crm.created",
    }


async def test_of_a_batch_that_failed_in_part_only_the_failed_are_for_later(lab: SqsLab) -> None:
    def spoil(body: bytes) -> bytes:
        answer = msgspec.json.decode(body)
        one = answer["Successful"].pop(1)
        failure = {"Id": one["Id"], "SenderFault": False, "Code": "InternalError", "Message": "try again"}
        return msgspec.json.encode(answer | {"Failed": [failure]})

    lab.front.edit = spoil
    verdicts = await lab.door.deliver([lab.item(number) for number in range(3)])

    assert [type(verdict) for verdict in verdicts] == [Delivered, Later, Delivered]


async def test_an_entry_that_is_the_senders_fault_is_refused(lab: SqsLab) -> None:
    def spoil(body: bytes) -> bytes:
        answer = msgspec.json.decode(body)
        one = answer["Successful"].pop(0)
        failure = {"Id": one["Id"], "SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"}
        return msgspec.json.encode(answer | {"Failed": [failure]})

    lab.front.edit = spoil
    verdicts = await lab.door.deliver([lab.item(0), lab.item(1)])

    assert verdicts == [Refused("invalid_request", "InvalidMessageContents: no"), Delivered()]


async def test_a_call_that_is_refused_as_a_whole_is_made_again_item_by_item(lab: SqsLab) -> None:
    bad = lab.item(1).outcome.result_id.encode()
    lab.front.judge = lambda body: lab.error(400, "InvalidParameterValue") if bad in body else None

    verdicts = await lab.door.deliver([lab.item(number) for number in range(3)])

    assert [type(verdict) for verdict in verdicts] == [Delivered, Refused, Delivered]
    assert lab.front.calls == 4


async def test_a_fifo_queue_gets_the_key_as_group_and_drops_repeats(lab: SqsLab) -> None:
    door = lab.make(is_fifo=True)
    await door.start()
    try:
        assert door.shape.order == "key"
        key = b"a b \xff"
        for _ in range(2):
            await door.deliver([result_item(1, key=key)])
        await door.deliver([result_item(2, key=b"account-7")])

        groups = [one["Attributes"]["MessageGroupId"] for one in await lab.messages()]
        assert sorted(groups) == ["account-7", f"sha256-{hashlib.sha256(key).hexdigest()}"]
    finally:
        await door.aclose()


async def test_a_fifo_queue_drops_no_outcome_that_only_shares_its_id_with_another_one(lab: SqsLab) -> None:
    """Events that are sent again on purpose, put back or done again end twice, and two API keys may use one id."""
    door = lab.make(is_fifo=True)
    await door.start()
    try:
        item = lab.item(1)
        # A group with a message under way is not received from.
        again = item._replace(outcome=item.outcome._replace(redrives=1), key=b"again")
        of_another = item._replace(outcome=item.outcome._replace(owner="another-key"), key=b"another")
        sent_again = item._replace(headers=[*item.headers, (ANSWERED, b"digest t/0/7")], key=b"sent again")
        replayed = item._replace(headers=[*item.headers, (REPLAY, b"1767225600500")], key=b"replayed")
        ends = [item, again, of_another, sent_again, replayed]
        for one in ends * 2:
            assert await door.deliver([one]) == [Delivered()]

        assert len(await lab.messages()) == len(ends)
    finally:
        await door.aclose()
