"""What SNS and SQS messages have in common: attributes, group ids, and how the services count bytes."""

import hashlib
import re

from gateways.egress.base import Item
from gateways.egress.rendering import MESSAGE_ATTRIBUTES, attributes, text_of

_TYPE = "String"
# Source: Amazon SQS API Reference, SendMessage, MessageGroupId (checked 2026-11).
_GROUP = re.compile(r"^[a-zA-Z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}$")


def message_attributes(item: Item) -> dict[str, dict[str, str]]:
    """Return the ten attributes that a message may have, under the names of the Kafka headers."""
    found = attributes(item)
    return {
        f"ce_{name}": {"DataType": _TYPE, "StringValue": found[name]} for name in MESSAGE_ATTRIBUTES if name in found
    }


def size_bytes(item: Item) -> int:
    """Return the bytes of a message as the services count them: body, and name, type and value of each attribute."""
    parts = message_attributes(item).items()
    return len(text_of(item).encode()) + sum(
        len(name) + len(_TYPE) + len(part["StringValue"].encode()) for name, part in parts
    )


def group_of(item: Item) -> str:
    """Return the message group of an item: its key, a digest of keys that may not stand there, or its own id."""
    if item.key is None:
        return item.outcome.result_id
    text = item.key.decode(errors="replace")
    return text if _GROUP.fullmatch(text) else "sha256-" + hashlib.sha256(item.key).hexdigest()
