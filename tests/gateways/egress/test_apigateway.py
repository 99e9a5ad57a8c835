"""The door to API Gateway's WebSocket connections, with botocore's own client, against a server of that protocol."""

from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest

from contracts.settings.egress import ApiGatewayDoor
from gateways.egress.apigateway import ApiGateway
from gateways.egress.base import Delivered, Door, Item, Refused
from tests.awslab.connections import Connections, refusal
from tests.awslab.front import Fault, Front
from tests.awslab.lab import AwsLab
from tests.awslab.moto import session
from tests.suites.egress import DoorSuite, Received, result_item

CONNECTION = "L0SM9cOFvHcCIhw="


class ConnectionsLab(AwsLab):
    cannot: ClassVar = {"batches": "one message a call"}
    codes: ClassVar = {
        "throttled": (429, "LimitExceededException"),
        "unavailable": (503, "ServiceUnavailable"),
        "denied": (403, "ForbiddenException"),
        "missing": (404, "NotFoundException"),
    }

    def __init__(self, connections: Connections, front: Front) -> None:
        self.connections = connections
        self.front = front
        self._door = None
        connections.open[CONNECTION] = []

    def make(self, **changes: Any) -> Door:
        settings = self.settings(ApiGatewayDoor, kind="apigateway", **changes)
        settings = settings.model_copy(update={"endpoint_url": f"{self.front.url}/stage"})
        return ApiGateway("live", settings, session())

    def error(self, status: int, code: str) -> Fault:
        return refusal(status, code)

    def item(self, number: int) -> Item:
        return result_item(number, connection=CONNECTION)

    def poison(self) -> Item:
        return result_item(99, connection=CONNECTION, output="x" * 140_000)

    async def received(self) -> list[Received]:
        bodies = [msgspec.json.decode(body) for body in self.connections.open[CONNECTION]]
        return [Received(self._id(body), body["result"]) for body in bodies]

    def _id(self, body: Any) -> str:
        return result_item(int(body["id"][1:])).outcome.result_id


@pytest.fixture
async def lab() -> AsyncIterator[ConnectionsLab]:
    connections = Connections()
    await connections.start()
    front = Front(connections.url)
    await front.start()
    lab = ConnectionsLab(connections, front)
    await lab.start()
    yield lab
    await lab.aclose()
    await connections.stop()


class TestApiGateway(DoorSuite):
    """The door passes the suite."""


async def test_the_message_is_what_the_poll_url_answers(lab: ConnectionsLab) -> None:
    item = lab.item(1)
    await lab.door.deliver([item])

    (body,) = lab.connections.open[CONNECTION]
    assert msgspec.json.decode(body) == {
        "id": "e1",
        "source": "crm",
        "status": "succeeded",
        "result": msgspec.json.decode(item.outcome.value),
    }


async def test_a_connection_that_is_gone_is_asked_once(lab: ConnectionsLab) -> None:
    verdicts = [await lab.door.deliver([result_item(number, connection="closed=")]) for number in range(3)]

    assert [(type(one), one.reason) for (one,) in verdicts if isinstance(one, Refused)] == [(Refused, "gone")] * 3
    assert lab.connections.posts == 1


def test_only_events_that_name_a_connection_are_its(lab: ConnectionsLab) -> None:
    assert lab.door.takes(lab.item(1))
    assert not lab.door.takes(result_item(1))


async def test_a_message_that_the_api_finds_too_large_is_refused(lab: ConnectionsLab) -> None:
    lab.front.fault = refusal(413, "PayloadTooLargeException")

    (verdict,) = await lab.door.deliver([lab.item(1)])

    assert verdict == Refused("too_large", "the API refused the message as too large")
    lab.front.fault = None
    assert list(await lab.door.deliver([lab.item(1)])) == [Delivered()]
