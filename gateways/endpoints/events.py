"""POST /v1/events: events of own systems, as CloudEvents or plain JSON. Writes: events.*."""

from gateways.asgi import Request, Response
from gateways.endpoints.accepting import accepted_once, note_accepted, posted_by
from gateways.ingress import posted
from gateways.ingress.once import produce_once
from gateways.parts import Parts


async def post_event(parts: Parts, request: Request, _parameter: bytes) -> Response:
    """Accept an event of an API caller.

    Raises:
        PenstockError: everything the steps raise.
    """
    settings = parts.settings
    caller, admission = await posted_by(parts, request)
    async with request.body(settings.max_body_bytes, settings.body_timeout_s, admission) as body:
        request.notes["body_bytes"] = len(body)
        event, record, lane = sent = posted.accept(caller, request.headers, request.query, body, parts.topics)
        request.notes |= {
            "event_id": event.id,
            "source": event.source,
            "type": event.type,
            "lane": lane,
            "topic": record.topic,
        }
        parts.backlog.check(record.topic)
        parts.caller_limits.event(caller, len(body))
        candidate = posted.candidate(sent, request.headers, parts.settings.idempotency.window_s)
        placed = await produce_once(parts.claims, parts.producer, candidate, settings.ack_timeout_s)
    position = placed.position
    request.notes |= {"partition": position.partition, "offset": position.offset, "dedup": placed.dedup}
    note_accepted(parts, event, candidate, position)
    return accepted_once(parts, event, placed, source=event.source)
