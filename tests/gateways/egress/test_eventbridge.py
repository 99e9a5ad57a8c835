"""The EventBridge door against moto, with boto3 over HTTP; a rule brings what matches to a queue."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from contracts.settings.egress import EventBridgeDoor
from gateways.egress.base import Delivered, Door, Later, Refused
from gateways.egress.eventbridge import EventBridge
from tests.awslab.front import Fault, Front
from tests.awslab.lab import AwsLab
from tests.awslab.moto import ACCOUNT, REGION, Moto, session
from tests.suites.egress import DoorSuite, Received, result_item


class EventBridgeLab(AwsLab):
    def make(self, **changes: Any) -> Door:
        buses, self.queues = self.moto.client("events"), self.moto.client("sqs")
        buses.create_event_bus(Name=self.name)
        self.url = self.queues.create_queue(QueueName=self.name)["QueueUrl"]
        pattern = '{"source": ["penstock/penstock"], "detail": {"eventsource": ["crm"]}}'
        buses.put_rule(Name="all", EventBusName=self.name, EventPattern=pattern)
        target = {"Id": "q", "Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}"}
        buses.put_targets(Rule="all", EventBusName=self.name, Targets=[target])
        settings = self.settings(EventBridgeDoor, kind="eventbridge", bus=self.name, **changes)
        return EventBridge("bus", settings, session())

    def error(self, status: int, code: str) -> Fault:
        body = msgspec.json.encode({"__type": code, "message": "no"})
        return Fault(status, body, {"Content-Type": "application/x-amz-json-1.1"})

    async def events(self) -> list[Any]:
        found: list[Any] = []
        while True:
            answer = await asyncio.to_thread(self.queues.receive_message, QueueUrl=self.url, MaxNumberOfMessages=10)
            if not answer.get("Messages"):
                return found
            found += [msgspec.json.decode(one["Body"]) for one in answer["Messages"]]

    async def received(self) -> list[Received]:
        return [Received(one["detail"]["id"], one["detail"]["data"]) for one in await self.events()]


@pytest.fixture
async def lab(moto: Moto, front: Front) -> AsyncIterator[EventBridgeLab]:
    lab = EventBridgeLab(moto, front)
    await lab.start()
    yield lab
    await lab.aclose()


class TestEventBridge(DoorSuite):
    """The door passes the suite."""


async def test_source_and_detail_type_are_what_rules_match_on(lab: EventBridgeLab) -> None:
    await lab.door.deliver([lab.item(1)])

    (event,) = await lab.events()
    assert (event["source"], event["detail-type"]) == ("penstock/penstock", "penstock.result.v1")
    assert event["time"] == "2026-01-01T00:00:00Z"
    assert event["detail"]["eventid"] == "e1"


async def test_a_bus_that_takes_more_gets_more(lab: EventBridgeLab) -> None:
    answer = msgspec.json.encode({"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]})
    lab.front.judge = lambda _: Fault(200, answer, {"Content-Type": "application/x-amz-json-1.1"})
    door = EventBridge(
        "bus", lab.settings(EventBridgeDoor, kind="eventbridge", bus=lab.name, max_event_bytes=1_048_576), session()
    )
    await door.start()
    try:
        large, too_large = result_item(1, output="x" * 300_000), result_item(2, output="x" * 1_048_576)

        assert [type(one) for one in await door.deliver([large, too_large])] == [Delivered, Refused]
        assert lab.front.calls == 1
    finally:
        await door.aclose()


@pytest.mark.parametrize(
    ("code", "kind"),
    [("ThrottlingException", Later), ("InternalFailure", Later), ("MalformedDetail", Refused)],
)
async def test_each_failed_entry_has_its_own_verdict(lab: EventBridgeLab, code: str, kind: type) -> None:
    def spoil(body: bytes) -> bytes:
        answer = msgspec.json.decode(body)
        answer["Entries"][1] = {"ErrorCode": code, "ErrorMessage": "no"}
        return msgspec.json.encode(answer | {"FailedEntryCount": 1})

    lab.front.edit = spoil
    verdicts = await lab.door.deliver([lab.item(number) for number in range(3)])

    assert [type(verdict) for verdict in verdicts] == [Delivered, kind, Delivered]
