"""An SNS notification in a queue's message: its Message is the event.

Not verified by signature: who may write to the queue is the queue's own policy.
Source: Amazon SNS, "Parsing Amazon SNS message formats"; CloudEvents adapter for SNS (both checked 2026-11).
"""

from typing import Any, Literal

import msgspec

from gateways.ingress.base import HeaderLines, Message
from gateways.ingress.envelopes.base import SNS_TYPE, Item, parse


class Notification(msgspec.Struct, rename="pascal"):
    """What SNS delivers to a queue, unless raw message delivery is on."""

    type: Literal["Notification"]
    message_id: str
    topic_arn: str
    message: str
    subject: str | None = None
    timestamp: str = ""
    message_attributes: dict[str, dict[str, Any]] = {}


def unwrap(message: Message) -> list[Item]:
    """Return the notification's Message.

    Raises:
        Undecodable: not an SNS notification.
    """
    found: Notification = parse(message.body, Notification, "an SNS notification; is raw message delivery on?")
    return [
        Item(
            message.headers + headers_of(found),
            found.message.encode("utf-8", "replace"),
            found.message_id,
            SNS_TYPE,
            key=message.group,
            subject=found.subject or "",
            time=found.timestamp or message.sent_at,
        )
    ]


def headers_of(found: Notification) -> HeaderLines:
    """Return what templates can read: the message attributes, and SNS's own headers as an HTTP delivery has them."""
    own = {"message-id": found.message_id, "topic-arn": found.topic_arn, "subject": found.subject or ""}
    lines = [(f"x-amz-sns-{name}", text) for name, text in own.items() if text]
    for name, attribute in found.message_attributes.items():
        value = attribute.get("Value")
        if isinstance(value, str):
            lines.append((name.lower(), value))
    return [(name.encode("utf-8", "replace"), text.encode("utf-8", "replace")) for name, text in lines]


def inner(message: Message) -> Message:
    """Return the message that an SNS notification carries; the message itself when it is none."""
    try:
        found = msgspec.json.decode(message.body, type=Notification)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return message
    return message._replace(body=found.message.encode("utf-8", "replace"), headers=message.headers + headers_of(found))
