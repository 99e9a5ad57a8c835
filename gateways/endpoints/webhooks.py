"""POST /webhooks/{source}: verify, build the event, produce, answer after the ack. Writes: events.*."""

from contracts.errors import PenstockError, UnknownSource
from contracts.metrics import WEBHOOKS
from gateways.asgi import Request, Response
from gateways.endpoints.accepting import accepted
from gateways.ingress.producing import produce
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.sources import Source
from gateways.parts import Parts


async def post_webhook(parts: Parts, request: Request, name: bytes) -> Response:
    """Accept a webhook.

    Raises:
        UnknownSource: no such source; before anything of the body is read.
        PenstockError: everything the steps raise.
    """
    source = parts.sources.get(name.decode("ascii", "replace"))
    if source is None:
        message = "no such source"
        raise UnknownSource(message)
    request.notes |= {"source": source.name, "scheme": source.settings.scheme, "lane": source.settings.lane}
    try:
        response = await _accept(parts, request, source)
    except PenstockError as error:
        WEBHOOKS.labels(source.name, error.reason).inc()
        raise
    WEBHOOKS.labels(source.name, "accepted").inc()
    return response


async def _accept(parts: Parts, request: Request, source: Source) -> Response:
    settings = parts.settings
    limit_bytes = min(settings.max_body_bytes, source.settings.max_body_bytes or settings.max_body_bytes)
    async with request.body(limit_bytes, settings.body_timeout_s, parts.admission) as body:
        request.notes["body_bytes"] = len(body)
        if isinstance(source, SnsSource):
            webhook = await source.accept(request.headers, body)
            if webhook is None:
                request.notes["outcome"] = "handshake"
                return Response(200)
        else:
            webhook = source.accept(request.headers, body, query=request.query, peer=request.peer)
        request.notes |= {
            "event_id": webhook.event.id,
            "type": webhook.event.type,
            "key_id": webhook.key_id,
            "topic": webhook.record.topic,
        }
        position = await produce(parts.producer, webhook.record, settings.ack_timeout_s)
    request.notes |= {"partition": position.partition, "offset": position.offset}
    return accepted(parts, webhook.event, position, source.settings.success_status)
