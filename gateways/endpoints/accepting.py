"""What both ways in have in common: produce, and say where the result will be."""

from typing import Any
from urllib.parse import quote

import msgspec

from contracts.codec import Position
from contracts.envelope import Event
from gateways.asgi import Response
from gateways.parts import Parts

_NO_CONTENT = 204


def status_url(parts: Parts, event: Event, position: Position) -> str:
    """Return where to ask for an event's result, with the ticket that allows it."""
    ticket = parts.tickets.issue(event.source, event.id, position)
    base = (parts.settings.public_url or "").rstrip("/")
    return f"{base}/v1/results/{quote(event.id, safe='')}?ticket={ticket}"


def accepted(parts: Parts, event: Event, position: Position, status: int = 202, **more: Any) -> Response:
    """Return the answer to an event that is on the log."""
    place = status_url(parts, event, position)
    headers = ((b"location", place.encode()),)
    if status == _NO_CONTENT:
        return Response(status, headers=headers)
    body = {"id": event.id, "status": "accepted", "status_url": place} | more
    return Response(status, msgspec.json.encode(body), headers=headers)
