"""POST /v1/events: events of own systems, as CloudEvents or plain JSON. Writes: events.*."""

from gateways.asgi import Request, Response
from gateways.endpoints.accepting import accepted
from gateways.ingress import posted
from gateways.ingress.producing import produce
from gateways.parts import Parts


async def post_event(parts: Parts, request: Request, _parameter: bytes) -> Response:
    """Accept an event of an API caller.

    Raises:
        PenstockError: everything the steps raise.
    """
    settings = parts.settings
    caller = parts.callers.authenticate(request.headers)
    request.notes["owner"] = caller.id
    async with request.body(settings.max_body_bytes, settings.body_timeout_s, parts.admission) as body:
        request.notes["body_bytes"] = len(body)
        event, record, lane = posted.accept(caller, request.headers, request.query, body, parts.topics)
        request.notes |= {
            "event_id": event.id,
            "source": event.source,
            "type": event.type,
            "lane": lane,
            "topic": record.topic,
        }
        parts.backlog.check(record.topic)
        position = await produce(parts.producer, record, settings.ack_timeout_s)
    request.notes |= {"partition": position.partition, "offset": position.offset}
    parts.results.note_accepted(caller.id, event.id, event.source, position)
    return accepted(parts, event, position, source=event.source)
