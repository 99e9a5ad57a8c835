"""What both ways in have in common: produce, and say where the result will be."""

from typing import Any
from urllib.parse import quote

import msgspec

from contracts.codec import Position
from contracts.envelope import Event
from gateways.asgi import Response
from gateways.parts import Parts

_NO_CONTENT = 204


def accepted(parts: Parts, event: Event, position: Position, status: int = 202, **more: Any) -> Response:
    """Return the answer to an event that is on the log."""
    ticket = parts.tickets.issue(event.source, event.id, position)
    base = (parts.settings.public_url or "").rstrip("/")
    status_url = f"{base}/v1/results/{quote(event.id, safe='')}?ticket={ticket}"
    headers = ((b"location", status_url.encode()),)
    if status == _NO_CONTENT:
        return Response(status, headers=headers)
    body = {"id": event.id, "status": "accepted", "status_url": status_url} | more
    return Response(status, msgspec.json.encode(body), headers=headers)
