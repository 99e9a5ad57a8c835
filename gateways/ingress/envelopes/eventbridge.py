"""An EventBridge event in a queue's message; the whole event is the data.

Source: Amazon EventBridge, "AWS service event metadata" (checked 2026-11).
"""

import msgspec

from gateways.ingress.base import Message
from gateways.ingress.envelopes import sns
from gateways.ingress.envelopes.base import Item, parse


class BusEvent(msgspec.Struct, rename={"detail_type": "detail-type"}):
    """What is needed of an EventBridge event."""

    id: str
    detail_type: str
    source: str
    time: str
    detail: msgspec.Raw
    resources: list[str] = []


def unwrap(message: Message) -> list[Item]:
    """Return the event; its type is the source and the detail-type.

    Raises:
        Undecodable: not an EventBridge event, as after an input transformer.
    """
    message = sns.inner(message)
    found: BusEvent = parse(message.body, BusEvent, "an EventBridge event; does the rule transform its input?")
    return [
        Item(
            message.headers,
            message.body,
            found.id,
            f"{found.source}.{found.detail_type}",
            key=message.group,
            subject=found.resources[0] if found.resources else "",
            time=found.time,
            content_type="application/json",
        )
    ]
