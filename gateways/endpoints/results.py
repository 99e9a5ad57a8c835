"""GET /v1/results/{id}: what became of an event, for whoever has its ticket or the API key that sent it."""

from urllib.parse import parse_qs, unquote_to_bytes

import msgspec

from contracts.errors import InvalidPayload, UnknownResult
from gateways.asgi import Request, Response
from gateways.egress.outcomes import Outcome
from gateways.egress.tickets import Ticket
from gateways.parts import Parts

_POLL_AFTER_S = b"1"
_CACHE = ((b"cache-control", b"no-store"),)


async def get_result(parts: Parts, request: Request, raw_id: bytes) -> Response:
    """Answer with the outcome, or 202 while there is none.

    Raises:
        Unauthenticated: neither ticket nor key.
        UnknownResult: unknown, or not the caller's; the two look the same.
        LogUnavailable: Kafka is away.
        Busy: ask again.
    """
    query = query_of(request)
    event_id = decoded_id(raw_id)
    if "ticket" in query:
        ticket = ticket_of(parts, query, event_id)
        source = ticket.source
        outcome = await parts.results.outcome_of(source, event_id, ticket.position)
    else:
        caller = parts.callers.authenticate(request.headers)
        request.notes["owner"] = caller.id
        source, outcome = await parts.results.outcome_for(caller.id, event_id, query.get("source"))
        if outcome is not None and outcome.owner != caller.id:
            raise _unknown()
    return _pending(event_id, source) if outcome is None else _finished(outcome)


def _pending(event_id: str, source: str) -> Response:
    body = msgspec.json.encode({"id": event_id, "source": source, "status": "pending"})
    return Response(202, body, headers=((b"retry-after", _POLL_AFTER_S), *_CACHE))


def _finished(outcome: Outcome) -> Response:
    return Response(200, msgspec.json.encode(outcome.body()), headers=_CACHE)


def ticket_of(parts: Parts, query: dict[str, str], event_id: str) -> Ticket:
    """Return what the ticket in a query says.

    Raises:
        UnknownResult: missing, forged, or of another event.
    """
    ticket = parts.tickets.read(query.get("ticket", ""))
    if ticket.id != event_id:
        raise _unknown()
    return ticket


def query_of(request: Request) -> dict[str, str]:
    """Return the first value of each parameter.

    Raises:
        InvalidPayload: not a query string.
    """
    try:
        parsed = parse_qs(request.query.decode("ascii"), errors="strict", max_num_fields=10)
    except ValueError as error:
        message = "the query cannot be read"
        raise InvalidPayload(message) from error
    return {name: values[0] for name, values in parsed.items()}


def decoded_id(raw_id: bytes) -> str:
    """Return the id in a path.

    Raises:
        UnknownResult: it is none.
    """
    try:
        return unquote_to_bytes(raw_id).decode()
    except UnicodeDecodeError as error:
        raise _unknown() from error


def _unknown() -> UnknownResult:
    return UnknownResult("no such result")
