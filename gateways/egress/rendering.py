"""An item as other systems read it: as a CloudEvent in JSON, or as its attributes beside the value.

Source: CloudEvents JSON Format 1.0.2 (checked 2026-11).
"""

import base64
from typing import Any

import msgspec

from gateways.egress.base import Item

# Services allow ten attributes a message; these say most. The others are in the value, or for us only.
MESSAGE_ATTRIBUTES = (
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "subject",
    "eventid",
    "eventsource",
    "eventtype",
    "traceparent",
)


def attributes(item: Item) -> dict[str, str]:
    """Return the record's CloudEvents attributes by name, those without text left out."""
    found = {
        name[3:]: (raw or b"").decode(errors="replace") for name, raw in item.headers if name.startswith("ce_") and raw
    }
    return {name: text for name, text in found.items() if text}


def structured(item: Item) -> bytes:
    """Return the outcome as one CloudEvent in JSON; its `data` is the record's value.

    Its extension attribute `deliveryid` tells repeats apart: for a duplicate of a worker's crash `time` is another one.
    """
    event: dict[str, Any] = {
        **attributes(item),
        "deliveryid": item.delivery_id,
        "datacontenttype": "application/json",
    }
    try:
        # As a whole it is looked through, not read: what is no UTF-8 would be passed on in a body that is none either.
        item.outcome.value.decode()
        event["data"] = msgspec.json.decode(item.outcome.value, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        event["data_base64"] = base64.b64encode(item.outcome.value).decode()
    return msgspec.json.encode(event)


def text_of(item: Item) -> str:
    """Return the record's value as text, as services take it that know no bytes."""
    return item.outcome.value.decode(errors="replace")
