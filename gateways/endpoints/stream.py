"""POST /v1/stream and GET /v1/stream/{id}: an answer as server-sent events while it is made. Writes: events.*."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from contracts.deltas import cancel_record
from contracts.envelope import format_time, result_id
from contracts.errors import PenstockError
from contracts.metrics import CANCELS, STREAM_FIRST_TOKEN, WATCHERS_ENDED
from contracts.payloads import Cancel
from gateways.asgi import Request, Response
from gateways.egress.feed import Seen
from gateways.egress.frames import HEARTBEAT, RETRY, Frame, as_event, read_seen
from gateways.egress.live import Entry
from gateways.egress.outcomes import event_name
from gateways.egress.tickets import Ticket
from gateways.endpoints.accepting import DUPLICATE, accepted_frame, called_by, note_accepted, places, posted_by
from gateways.endpoints.results import decoded_id, query_of, ticket_of
from gateways.ingress import once, posted
from gateways.ingress.producing import produce
from gateways.parts import Parts
from gateways.problems import told
from gateways.streaming import Stream

_PROTOCOL = "sse"
_NO_CONTENT = 204
_CONTENT_TYPE = b"text/event-stream"
_HEADERS = (
    (b"cache-control", b"no-store"),
    # nginx, and who follows it, would collect the answer otherwise.
    (b"x-accel-buffering", b"no"),
)


async def post_stream(parts: Parts, request: Request, _parameter: bytes) -> Response:
    """Accept an event of an API caller, and answer with its answer as it grows.

    Raises:
        PenstockError: everything the steps raise; nothing is accepted where there are too many watchers.
    """
    began_s = asyncio.get_running_loop().time()
    settings = parts.settings
    caller, admission = await posted_by(parts, request)
    async with request.body(settings.max_body_bytes, settings.body_timeout_s, admission) as body:
        request.notes["body_bytes"] = len(body)
        event, record, lane = sent = posted.accept(
            caller,
            request.headers,
            request.query,
            body,
            parts.topics,
            delivery="stream",
            usual_lane="interactive",
        )
        request.notes |= {"event_id": event.id, "source": event.source, "type": event.type, "lane": lane}
        parts.backlog.check(record.topic)
        parts.caller_limits.event(caller, len(body))
        candidate = posted.candidate(sent, request.headers, settings.idempotency.window_s)
        # Its watchers are known by id.
        once.check_id(parts.claims, candidate)
        with contextlib.ExitStack() as stack:
            name = event_name(result_id(event.source, event.id), event.owner)
            is_new = once.is_new(parts.claims, candidate)
            entry = stack.enter_context(parts.live.watching(name, _PROTOCOL, is_new=is_new))
            placed = await once.produce_once(parts.claims, parts.producer, candidate, settings.ack_timeout_s)
            held = stack.pop_all()
    position, place = placed.position, places(parts, event, placed.position)
    request.notes |= {"topic": record.topic, "partition": position.partition, "offset": position.offset}
    request.notes["dedup"] = placed.dedup
    note_accepted(parts, event, candidate, position)
    first = accepted_frame(event, place, placed)
    chunks = _chunks(parts, entry, Ticket(event.source, event.id, position, event.owner), Seen(), first, began_s)
    more = ((b"location", place["stream_url"].encode()), *((DUPLICATE,) if placed.is_duplicate else ()))
    return _streamed(parts, request, chunks, held, more)


async def get_stream(parts: Parts, request: Request, raw_id: bytes) -> Response:
    """Answer with the stream of an event, from where the client was; 204 where it has everything already.

    Raises:
        UnknownResult: no ticket, a forged one, or one of another event; or too old.
        InvalidPayload: the last event id is none of ours.
        Busy: too many watchers.
        LogUnavailable: Kafka is away.
    """
    query = query_of(request)
    ticket = ticket_of(parts, query, decoded_id(raw_id))
    said = request.values(b"last-event-id")
    seen = read_seen(said[-1].decode("ascii", "replace") if said else query.get("last_event_id", ""))
    if seen is None:
        # Not to be kept, as the stream itself: who asks for it without that id is to get it.
        return Response(_NO_CONTENT, headers=(*_HEADERS[:1], *_cors(parts, request)))
    # Too old, or Kafka away: said now, with its code.
    await parts.results.outcome_of(ticket.source, ticket.id, ticket.position, ticket.owner)
    stack = contextlib.ExitStack()
    entry = stack.enter_context(parts.live.watching(ticket.name, _PROTOCOL))
    return _streamed(parts, request, _chunks(parts, entry, ticket, seen), stack)


async def delete_stream(parts: Parts, request: Request, raw_id: bytes) -> Response:
    """Ask the workers to stop an event; its one outcome follows. 200 with the outcome where it has one already.

    Raises:
        Unauthenticated: no key; the ticket alone may watch, not cancel.
        Forbidden: the key may not claim the event's source.
        UnknownResult: no ticket, a forged one, or one of another event; or too old.
        RateLimited: too many requests with this key.
        LogUnavailable: the wish is not on the log.
        Busy: ask again.
    """
    caller = called_by(parts, request)
    ticket = ticket_of(parts, query_of(request), decoded_id(raw_id))
    caller.check_source(ticket.source)
    request.notes |= {"event_id": ticket.id, "source": ticket.source}
    outcome = await parts.results.outcome_of(ticket.source, ticket.id, ticket.position, ticket.owner)
    if outcome is not None:
        CANCELS.labels("ended").inc()
        return Response(200, msgspec.json.encode(outcome.body()), headers=_HEADERS[:1])
    at = format_time(datetime.now(UTC))
    cancel = Cancel(event_id=ticket.id, by=caller.id, at=at, **ticket.position._asdict())
    await produce(parts.producer, cancel_record(parts.topics.cancels, cancel), parts.settings.ack_timeout_s)
    CANCELS.labels("asked").inc()
    return Response(202, msgspec.json.encode({"id": ticket.id, "source": ticket.source, "status": "cancelling"}))


def _streamed(
    parts: Parts,
    request: Request,
    chunks: AsyncIterator[bytes],
    held: contextlib.ExitStack,
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> Response:
    streams = parts.settings.streams

    def ended(outcome: str) -> None:
        is_stopping = outcome == "finished" and parts.live.is_ending
        WATCHERS_ENDED.labels(_PROTOCOL, "stopping" if is_stopping else outcome).inc()

    stream = Stream(chunks, held.close, streams.send_timeout_s, streams.max_duration_s, ended)
    headers = (*_HEADERS, *_cors(parts, request), *more)
    return Response(200, content_type=_CONTENT_TYPE, headers=headers, stream=stream)


async def _chunks(
    parts: Parts, entry: Entry, ticket: Ticket, seen: Seen, first: Frame | None = None, began_s: float | None = None
) -> AsyncIterator[bytes]:
    yield RETRY + (as_event(first) if first else b"")
    try:
        async for frames in parts.live.frames(entry, ticket, seen):
            if began_s is not None and any(frame.get("text") for frame in frames):
                STREAM_FIRST_TOKEN.observe(asyncio.get_running_loop().time() - began_s)
                began_s = None
            yield b"".join(map(as_event, frames)) or HEARTBEAT
    except PenstockError as error:
        # The head is out: all that is left is to say it. The client comes back, and is refused with the right code.
        yield as_event({"type": "error", "id": ticket.id, "reason": error.reason, "message": told(error)})


def _cors(parts: Parts, request: Request) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that let a web page of an allowed origin read the answer."""
    allowed = parts.settings.streams.allowed_origins
    origin = next(iter(request.values(b"origin")), b"")
    vary = ((b"vary", b"origin"),) if allowed else ()
    if origin.decode("ascii", "replace") in allowed:
        return ((b"access-control-allow-origin", origin), *vary)
    return vary
