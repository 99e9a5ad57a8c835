"""POST /webhooks/{source}: verify, build the event, produce, answer after the ack; GET and OPTIONS: handshakes.

Writes: events.*.
"""

from contracts.codec import Position
from contracts.envelope import Event
from contracts.errors import PenstockError, UnknownSource
from contracts.metrics import WEBHOOKS
from gateways.asgi import Request, Response
from gateways.endpoints.accepting import accepted
from gateways.ingress.handshakes.base import GUARDS, HandshakeRequest
from gateways.ingress.media_types import check_media_type
from gateways.ingress.producing import produce
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.sources import Source
from gateways.ingress.webhooks import WebhookSource
from gateways.parts import Parts


def methods_of(parts: Parts, name: bytes) -> tuple[str, ...]:
    """Return the methods that a source's URL has; POST alone for an unknown one."""
    source = _find(parts, name)
    return ("POST", *(source.handshakes.methods if isinstance(source, WebhookSource) else ()))


async def post_webhook(parts: Parts, request: Request, name: bytes) -> Response:
    """Accept a webhook, or answer a handshake.

    Raises:
        UnknownSource: no such source; before anything of the body is read.
        PenstockError: everything the steps raise.
    """
    source = _known(parts, name)
    request.notes |= {"source": source.name, "scheme": source.settings.scheme, "lane": source.settings.lane}
    try:
        response = await _accept(parts, request, source)
    except PenstockError as error:
        WEBHOOKS.labels(source.name, error.reason).inc()
        raise
    WEBHOOKS.labels(source.name, request.notes.get("outcome", "accepted")).inc()
    return response


async def shake_hands(parts: Parts, request: Request, name: bytes) -> Response:
    """Answer a handshake that is not a POST; nothing of a body is read.

    Raises:
        UnknownSource: no such source.
        PenstockError: it cannot be answered.
    """
    source = _known(parts, name)
    request.notes |= {"source": source.name, "scheme": source.settings.scheme}
    try:
        response = _handshake(request, source, b"")
        if response is None:
            message = "no such handshake"
            raise UnknownSource(message)
    except PenstockError as error:
        WEBHOOKS.labels(source.name, error.reason).inc()
        raise
    WEBHOOKS.labels(source.name, "handshake").inc()
    return response


def _find(parts: Parts, name: bytes) -> Source | None:
    return parts.sources.get(name.decode("ascii", "replace"))


def _known(parts: Parts, name: bytes) -> Source:
    source = _find(parts, name)
    if source is None:
        message = "no such source"
        raise UnknownSource(message)
    return source


async def _accept(parts: Parts, request: Request, source: Source) -> Response:
    settings = parts.settings
    limit_bytes = min(settings.max_body_bytes, source.settings.max_body_bytes or settings.max_body_bytes)
    async with request.body(limit_bytes, settings.body_timeout_s, parts.admission) as body:
        request.notes["body_bytes"] = len(body)
        if isinstance(source, SnsSource):
            check_media_type(source.settings.content_types, request.headers)
            webhook = await source.accept(request.headers, body)
            if webhook is None:
                request.notes["outcome"] = "handshake"
                return Response(200)
        else:
            answer = _handshake(request, source, body)
            if answer is not None:
                return answer
            check_media_type(source.settings.content_types, request.headers)
            webhook = source.accept(request.headers, body, query=request.query, peer=request.peer)
        request.notes |= {
            "event_id": webhook.event.id,
            "type": webhook.event.type,
            "key_id": webhook.key_id,
            "topic": webhook.record.topic,
        }
        position = await produce(parts.producer, webhook.record, settings.ack_timeout_s)
    request.notes |= {"partition": position.partition, "offset": position.offset}
    return _accepted(parts, source, webhook.event, position)


def _handshake(request: Request, source: Source, body: bytes) -> Response | None:
    if not isinstance(source, WebhookSource) or not source.handshakes.is_any:
        return None
    answer = source.handshakes.answer(
        HandshakeRequest(request.method, request.query, request.headers, body, request.peer)
    )
    if answer is None:
        return None
    request.notes |= {"outcome": "handshake", "detail": answer.kind}
    return Response(200, answer.body, answer.content_type, (*answer.headers, *GUARDS))


def _accepted(parts: Parts, source: Source, event: Event, position: Position) -> Response:
    """Return the answer after the ack: the sender's own, where it wants one."""
    wanted = source.settings
    answer = accepted(parts, event, position, wanted.success_status)
    if wanted.success_body is None:
        return answer
    content_type = wanted.success_content_type.encode()
    return answer._replace(body=wanted.success_body.encode(), content_type=content_type)
