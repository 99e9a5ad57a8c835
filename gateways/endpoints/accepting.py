"""What both ways in have in common: produce, and say where the result will be."""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from contracts.codec import Position
from contracts.envelope import DELIVERY, Event
from gateways.asgi import Response
from gateways.ingress.once import Placed
from gateways.parts import Parts

_NO_CONTENT = 204
# Of what is not escaped in a URL.
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
DUPLICATE = (b"penstock-duplicate", b"true")


def accepted(parts: Parts, event: Event, position: Position, status: int = 202, **more: Any) -> Response:
    """Return the answer to an event that is on the log."""
    place = places(parts, event, position)
    headers = ((b"location", place["status_url"].encode()),)
    if status == _NO_CONTENT:
        return Response(status, headers=headers)
    body = {"id": event.id, "status": "accepted"} | place | more
    return Response(status, msgspec.json.encode(body), headers=headers)


def accepted_once(parts: Parts, event: Event, placed: Placed, status: int = 202, **more: Any) -> Response:
    """Return the answer to an event that is on the log, or was already: then its places are those of the first one."""
    if not placed.is_duplicate:
        return accepted(parts, event, placed.position, status, **more)
    first = event if placed.event_id == event.id else msgspec.structs.replace(event, id=placed.event_id)
    response = accepted(parts, first, placed.position, status, **more, duplicate=True)
    return response._replace(headers=(*response.headers, DUPLICATE))


def places(parts: Parts, event: Event, position: Position) -> dict[str, str]:
    """Return the URLs of an event's outcome and, where it is streamed, of its stream; both work without an API key."""
    ticket = parts.tickets.issue(event.source, event.id, position)
    base = (parts.settings.public_url or "").rstrip("/")
    event_id = event.id if _PLAIN.fullmatch(event.id) else quote(event.id, safe="")
    tail = f"{event_id}?ticket={ticket}"
    found = {"status_url": f"{base}/v1/results/{tail}"}
    if event.extensions.get(DELIVERY) == "stream":
        found["stream_url"] = f"{base}/v1/stream/{tail}"
    return found


def status_url(parts: Parts, event: Event, position: Position) -> str:
    """Return where to ask for an event's result, with the ticket that allows it."""
    return places(parts, event, position)["status_url"]
