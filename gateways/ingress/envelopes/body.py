"""The message is the event: plain SQS, or SNS with raw message delivery."""

from gateways.ingress.base import Message
from gateways.ingress.envelopes.base import SQS_TYPE, Item


def unwrap(message: Message) -> list[Item]:
    """Return the message as it is."""
    return [
        Item(message.headers, message.body, message.id, SQS_TYPE, key=message.group, time=message.sent_at),
    ]
