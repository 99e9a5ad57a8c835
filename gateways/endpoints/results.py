"""GET /v1/results/{id}: what became of an event, for whoever has its ticket or the API key that sent it."""

from typing import NamedTuple
from urllib.parse import parse_qs, unquote_to_bytes

import msgspec

from contracts.codec import Position
from contracts.envelope import result_id
from contracts.errors import InvalidPayload, UnknownResult
from gateways.asgi import Request, Response
from gateways.egress.outcomes import Outcome
from gateways.egress.tickets import Ticket
from gateways.endpoints.accepting import called_by
from gateways.endpoints.waiting import Budget, budget_of, wait_for_outcome
from gateways.parts import Parts

_POLL_AFTER_S = b"1"
_CACHE = ((b"cache-control", b"no-store"),)


async def get_result(parts: Parts, request: Request, raw_id: bytes) -> Response:
    """Answer with the outcome, or 202 while there is none; with `Prefer: wait=N`, wait for it.

    Raises:
        Unauthenticated: neither ticket nor key.
        UnknownResult: unknown, or not the caller's; the two look the same.
        RateLimited: too many requests with this key.
        LogUnavailable: Kafka is away.
        Busy: ask again.
    """
    budget = budget_of(parts.settings, request.headers, usual_s=0.0)
    asked = await _asked(parts, request, decoded_id(raw_id))
    outcome = await _read(parts, asked)
    if outcome is None and budget.left_s > 0 and not parts.waiters.is_full:
        outcome = await _wait(parts, request, asked, budget)
    response = _pending(asked.id, asked.source) if outcome is None else finished(outcome)
    return response._replace(headers=(*response.headers, *budget.headers))


class _Asked(NamedTuple):
    """Which result is asked for; the owner is an API key, or empty for a webhook's."""

    source: str
    id: str
    position: Position
    owner: str


async def _asked(parts: Parts, request: Request, event_id: str) -> _Asked:
    query = query_of(request)
    if "ticket" in query:
        ticket = ticket_of(parts, query, event_id)
        return _Asked(ticket.source, event_id, ticket.position, ticket.owner)
    caller = called_by(parts, request)
    found = await parts.results.accepted(caller.id, event_id, query.get("source"))
    return _Asked(found.source, event_id, found.position, caller.id)


async def _read(parts: Parts, asked: _Asked) -> Outcome | None:
    return await parts.results.outcome_of(asked.source, asked.id, asked.position, asked.owner)


async def _wait(parts: Parts, request: Request, asked: _Asked, budget: Budget) -> Outcome | None:
    with parts.waiters.place() as waiter:
        waiter.expect(result_id(asked.source, asked.id), asked.owner)
        # It may have come between the first look and now.
        outcome = await _read(parts, asked)
        if outcome is None:
            outcome, is_there = await wait_for_outcome(request, waiter, budget)
            # Those who wait are woken by id: another event may have it too, which this one may repeat or not.
            if is_there and (outcome is None or outcome.is_of_another(asked.position)):
                outcome = await _read(parts, asked)
    return outcome


def _pending(event_id: str, source: str) -> Response:
    body = msgspec.json.encode({"id": event_id, "source": source, "status": "pending"})
    return Response(202, body, headers=((b"retry-after", _POLL_AFTER_S), *_CACHE))


def finished(outcome: Outcome) -> Response:
    """Return the answer that says what became of an event."""
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
