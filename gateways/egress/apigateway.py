"""Sends outcomes to the WebSocket connection of an Amazon API Gateway API that the event's `connectionid` names.

The message is what `GET /v1/results/{id}` answers. A connection that is gone is forgotten: what else is
for it is refused without a call.
Source: API Gateway Developer Guide, @connections commands and quotas (checked 2026-11).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from contracts.envelope import CONNECTION_ID
from contracts.settings.egress import ApiGatewayDoor
from gateways.egress.aws import CALL_ERRORS, Aws, verdict_of
from gateways.egress.base import DELIVERED, Item, PlainDoor, Refused, Shape, Verdict

# Of one message; it is sent in frames of 32 KB.
_LIMIT_BYTES = 131_072
_MAX_GONE = 10_000
_GONE = Refused("gone", "the connection is closed; the result is there to poll")
_GONE_STATUS = 410
_TOO_LARGE_STATUS = 413


class ApiGateway(PlainDoor):
    """The connections of one API and stage."""

    def __init__(self, name: str, settings: ApiGatewayDoor, session: Any = None) -> None:
        self._aws = Aws(name, "apigatewaymanagementapi", settings, session)
        self._gone: OrderedDict[str, None] = OrderedDict()
        self.shape = Shape(many_destinations=True)

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    def takes(self, item: Item) -> bool:
        """Take what names a connection."""
        return bool(item.attribute(CONNECTION_ID))

    def destination(self, item: Item) -> str:
        """Name the connection."""
        return item.attribute(CONNECTION_ID)

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Send one message."""
        return [await self._post(item) for item in items]

    async def _post(self, item: Item) -> Verdict:
        connection = self.destination(item)
        if connection in self._gone:
            return _GONE
        data = msgspec.json.encode(item.outcome.body())
        if len(data) > _LIMIT_BYTES:
            return Refused("too_large", f"{len(data)} bytes, a connection takes {_LIMIT_BYTES}; it is there to poll")
        try:
            await self._aws.call("post_to_connection", ConnectionId=connection, Data=data)
        except CALL_ERRORS as error:
            return self._verdict(connection, error)
        return DELIVERED

    def _verdict(self, connection: str, error: Exception) -> Verdict:
        status = 0
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status == _GONE_STATUS:
            self._gone[connection] = None
            if len(self._gone) > _MAX_GONE:
                self._gone.popitem(last=False)
            return _GONE
        if status == _TOO_LARGE_STATUS:
            return Refused("too_large", "the API refused the message as too large")
        return verdict_of(error)
