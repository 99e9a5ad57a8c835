"""Puts outcomes on an Amazon EventBridge bus: one event each, whose detail is the CloudEvent in JSON.

Rules match on `source` (`penstock/<app>`), `detail-type` (`penstock.result.v1` and so on) and anything in `detail`.
Source: Amazon EventBridge API Reference, PutEvents and its size calculation (checked 2026-11).
"""

from collections.abc import Sequence
from typing import Any

from contracts.envelope import parse_time
from contracts.settings.egress import EventBridgeDoor
from gateways.egress.aws import Aws, code_verdict, in_batches
from gateways.egress.base import DELIVERED, Item, PlainDoor, Shape, Verdict
from gateways.egress.rendering import structured

# An entry counts 14 for its time, and the bytes of its three texts.
_TIME_BYTES = 14
_BATCH = 10
_ENTRY_FAULTS = frozenset({"InternalFailure", "InternalException"})


class EventBridge(PlainDoor):
    """One event bus."""

    def __init__(self, name: str, settings: EventBridgeDoor, session: Any = None) -> None:
        self._settings = settings
        self._aws = Aws(name, "events", settings, session)
        # The limit of a call is the one of an event. Structured JSON repeats the attributes' names: a third less than
        # the limit leaves room for them.
        self.shape = Shape(_BATCH, 2 * settings.max_event_bytes // 3, settings.linger_s)

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Put up to ten events in one call."""
        return await in_batches(items, self._settings.max_event_bytes, _size_bytes, self._put)

    async def _put(self, items: Sequence[Item]) -> list[Verdict]:
        answer = await self._aws.call("put_events", Entries=[self._entry(item) for item in items])
        return [_verdict(entry) for entry in answer["Entries"]]

    def _entry(self, item: Item) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "Source": item.attribute("source"),
            "DetailType": item.outcome.type,
            "Detail": structured(item).decode(),
            "EventBusName": self._settings.bus,
        }
        at = parse_time(item.attribute("time"))
        return entry | ({"Time": at} if at else {})


def _size_bytes(item: Item) -> int:
    return _TIME_BYTES + len(item.attribute("source").encode()) + len(item.outcome.type) + len(structured(item))


def _verdict(entry: dict[str, Any]) -> Verdict:
    code = entry.get("ErrorCode")
    if not code:
        return DELIVERED
    return code_verdict(code, entry.get("ErrorMessage", ""), 500 if code in _ENTRY_FAULTS else 400)
