"""What the endpoints have in common: who calls, and where the result of an accepted event will be."""

import re
from typing import Any
from urllib.parse import quote

import msgspec

from contracts.codec import Position
from contracts.envelope import DELIVERY, Event
from contracts.errors import RateLimited
from gateways.asgi import Request, Response
from gateways.egress.outcomes import Accepted
from gateways.ingress.admission import Admission
from gateways.ingress.callers import Caller
from gateways.ingress.once import Candidate, Placed
from gateways.parts import Parts

_NO_CONTENT = 204
# Of what is not escaped in a URL.
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
DUPLICATE = (b"penstock-duplicate", b"true")


def called_by(parts: Parts, request: Request) -> Caller:
    """Return who calls, and count the request.

    Raises:
        Unauthenticated: no key, or an unknown one.
        InvalidPayload: two Authorization headers.
        RateLimited: too many requests with this key.
    """
    caller = parts.callers.authenticate(request.headers)
    request.notes["owner"] = caller.id
    parts.caller_limits.request(caller)
    return caller


async def posted_by(parts: Parts, request: Request) -> tuple[Caller, Admission]:
    """Return who posts an event, and where its body counts; nothing of it is read yet.

    Raises:
        PenstockError: as `called_by`; also where there is no room for an event.
    """
    try:
        caller = called_by(parts, request)
        return caller, parts.caller_limits.posting(caller)
    except RateLimited:
        await request.discard()
        raise


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


def note_accepted(parts: Parts, event: Event, candidate: Candidate, position: Position) -> None:
    """Remember where an event of an API caller lies, and which body it has where it is known by its id."""
    digest = candidate.identity.digest if candidate.identity is not None else b""
    parts.results.note_accepted(event.owner, event.id, Accepted(event.source, position, digest))


def places(parts: Parts, event: Event, position: Position) -> dict[str, str]:
    """Return the URLs of an event's outcome and, where it is streamed, of its stream; both work without an API key."""
    ticket = parts.tickets.issue(event.source, event.id, position, event.owner)
    base = (parts.settings.public_url or "").rstrip("/")
    event_id = event.id if _PLAIN.fullmatch(event.id) else quote(event.id, safe="")
    tail = f"{event_id}?ticket={ticket}"
    found = {"status_url": f"{base}/v1/results/{tail}"}
    if event.extensions.get(DELIVERY) == "stream":
        found["stream_url"] = f"{base}/v1/stream/{tail}"
    return found


def accepted_frame(event: Event, place: dict[str, str], placed: Placed) -> dict[str, Any]:
    """Return what the watcher of a streamed event gets first."""
    again = {"duplicate": True} if placed.is_duplicate else {}
    return {"type": "accepted", "id": event.id, "source": event.source} | place | again


def status_url(parts: Parts, event: Event, position: Position) -> str:
    """Return where to ask for an event's result, with the ticket that allows it."""
    return places(parts, event, position)["status_url"]
