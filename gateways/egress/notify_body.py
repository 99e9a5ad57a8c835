"""What a callback carries: the outcome as one CloudEvent in JSON, all of it signed; headers say nothing that matters.

The same record always gives the same bytes. Pure.

Source: Standard Webhooks 1.0.0, "Payload"; CloudEvents HTTP Protocol Binding 1.0.2, structured mode (checked 2026-11).
"""

import re

from contracts.envelope import TRACE_PARENT
from contracts.errors import Undecodable
from gateways.egress.base import Item
from gateways.egress.rendering import structured

# Without a dot, which would shift what is signed.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def body_of(item: Item) -> bytes:
    """Return the body.

    Raises:
        Undecodable: the record's id is not one of ours.
    """
    if not _ID.fullmatch(item.outcome.result_id):
        message = "the record's id has characters that cannot be signed"
        raise Undecodable(message)
    return structured(item)


def headers_of(item: Item, content_type: str, user_agent: str) -> dict[str, str]:
    """Return the headers that are the same for every attempt."""
    headers = {"content-type": content_type, "user-agent": user_agent, "accept-encoding": "identity"}
    parent = item.attribute(TRACE_PARENT)
    return headers | ({"traceparent": parent} if _TRACE_PARENT.fullmatch(parent) else {})
