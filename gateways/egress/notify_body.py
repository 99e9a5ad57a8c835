"""What a callback carries: everything inside the signed body, nothing that matters in headers. Pure.

    {"type": "penstock.result.v1", "timestamp": ..., "id": ..., "event": {id, source, type, subject}, "data": ...}

`data` is the terminal record's value as it lies on the log. The same record always gives the same bytes.

Source: Standard Webhooks 1.0.0, "Payload structure".
"""

import re

import msgspec

from contracts.codec import decode_any_json
from contracts.envelope import TRACE_PARENT
from contracts.errors import Undecodable
from gateways.egress.base import Item

# Without a dot, which would shift what is signed.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class _Event(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    source: str
    type: str
    subject: str = ""


class _Body(msgspec.Struct, frozen=True):
    type: str
    timestamp: str
    id: str
    event: _Event
    data: msgspec.Raw


def body_of(item: Item) -> bytes:
    """Return the body.

    Raises:
        Undecodable: the record's id or value is not one of ours.
    """
    outcome = item.outcome
    if not _ID.fullmatch(outcome.result_id):
        message = "the record's id is not one that can be signed"
        raise Undecodable(message)
    decode_any_json(outcome.value)
    event = _Event(outcome.event_id, outcome.source, item.event_type, item.attribute("subject"))
    return msgspec.json.encode(
        _Body(outcome.type, item.attribute("time"), outcome.result_id, event, msgspec.Raw(outcome.value))
    )


def headers_of(item: Item, user_agent: str) -> dict[str, str]:
    """Return the headers that are the same for every attempt."""
    headers = {"content-type": "application/json", "user-agent": user_agent, "accept-encoding": "identity"}
    parent = item.attribute(TRACE_PARENT)
    return headers | ({"traceparent": parent} if _TRACE_PARENT.fullmatch(parent) else {})
