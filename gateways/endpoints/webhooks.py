"""POST /webhooks/{source}: verify, build the event, produce, answer after the ack; GET and OPTIONS: handshakes.

Writes: events.*.
"""

from functools import partial

from contracts.errors import BadSignature, Busy, Forbidden, PenstockError, RateLimited, UnknownSource
from contracts.metrics import WEBHOOKS
from contracts.settings import SourceSettings
from contracts.tallies import Tally
from gateways.asgi import Request, Response
from gateways.endpoints.accepting import accepted_once
from gateways.ingress.handshakes.base import GUARDS, HandshakeRequest
from gateways.ingress.limits import Visit
from gateways.ingress.media_types import check_media_type
from gateways.ingress.once import Candidate, produce_once
from gateways.ingress.peers import Peer
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.sources import Source
from gateways.ingress.webhooks import Accepted, WebhookSource
from gateways.parts import Parts

_webhooks = Tally(WEBHOOKS)


def methods_of(parts: Parts, name: bytes) -> tuple[str, ...]:
    """Return the methods that a source's URL has; POST alone for an unknown one."""
    source = parts.sources.find(name)
    return ("POST", *(source.handshakes.methods if isinstance(source, WebhookSource) else ()))


async def post_webhook(parts: Parts, request: Request, name: bytes) -> Response:
    """Accept a webhook, or answer a handshake.

    Raises:
        UnknownSource: no such source; before anything of the body is read.
        PenstockError: everything the steps raise.
    """
    source = _known(parts, name)
    notes = request.notes
    notes["source"], notes["scheme"], notes["lane"] = source.name, source.settings.scheme, source.settings.lane
    peer = parts.peers.find(request.peer, request.headers)
    try:
        response = await _visit(parts, request, source, peer)
    except PenstockError as error:
        _webhooks[source.name, error.reason].append(1.0)
        _note_peer(parts, request, source, peer, error)
        raise
    _webhooks[source.name, notes.get("outcome", "accepted")].append(1.0)
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
        _check_address(source, parts.peers.find(request.peer, request.headers))
        response = _handshake(request, source, b"")
        if response is None:
            message = "no such handshake"
            raise UnknownSource(message)
    except PenstockError as error:
        _webhooks[source.name, error.reason].append(1.0)
        raise
    _webhooks[source.name, "handshake"].append(1.0)
    return response


def _known(parts: Parts, name: bytes) -> Source:
    source = parts.sources.find(name)
    if source is None:
        message = "no such source"
        raise UnknownSource(message)
    return source


async def _visit(parts: Parts, request: Request, source: Source, peer: Peer) -> Response:
    """Let a request pass the limits on its way."""
    _check_address(source, peer)
    try:
        parts.backlog.check(source.topic)
        visit = parts.limits.enter(source.name, peer.name, source.settings.limit)
    except Busy:
        await request.discard()
        raise
    try:
        return await _accept(parts, request, source, visit)
    except PenstockError as error:
        # A name for what is raised would make a circle of it and this frame, and keep the body with them.
        visit.refused(error)
        raise


def _check_address(source: Source, peer: Peer) -> None:
    networks = source.settings.allow_networks
    if networks and not peer.is_in(networks):
        message = "not from this address"
        raise Forbidden(message)


def _note_peer(parts: Parts, request: Request, source: Source, peer: Peer, error: PenstockError) -> None:
    """Name the address of who is refused for its own doing; of a flood only now and then."""
    if isinstance(error, BadSignature | Forbidden | RateLimited):
        request.notes["peer"] = peer.name
    if isinstance(error, RateLimited):
        left_out = parts.limits.left_out(source.name, peer.name)
        request.is_quiet = left_out is None
        request.notes["similar_left_out"] = left_out


async def _accept(parts: Parts, request: Request, source: Source, visit: Visit) -> Response:
    settings, admission = parts.settings, visit.admission
    limit_bytes = min(settings.max_body_bytes, source.settings.max_body_bytes or settings.max_body_bytes)
    # No block of `request.body`: this runs most often.
    body = await request.read(limit_bytes, settings.body_timeout_s, admission)
    try:
        request.notes["body_bytes"] = len(body)
        visit.read(len(body))
        if isinstance(source, SnsSource):
            webhook = await _message(request, source, visit, body)
        else:
            webhook = _verified(request, source, visit, body)
        if isinstance(webhook, Response):
            return webhook
        event, record, notes = webhook.event, webhook.record, request.notes
        notes["event_id"], notes["type"] = event.id, event.type
        notes["key_id"], notes["topic"] = webhook.key_id, record.topic
        candidate = Candidate(event.id, record, webhook.identity, source.name, webhook.is_redelivery)
        placed = await produce_once(parts.claims, parts.producer, candidate, settings.ack_timeout_s)
    finally:
        admission.release(len(body))
    position = placed.position
    notes["partition"], notes["offset"], notes["dedup"] = position.partition, position.offset, placed.dedup
    if placed.is_duplicate:
        notes["outcome"] = "duplicate"
    wanted = source.settings
    answer = accepted_once(parts, event, placed, wanted.success_status)
    return answer if wanted.success_body is None else _in_words(answer, wanted)


async def _message(request: Request, source: SnsSource, visit: Visit, body: bytes) -> Accepted | Response:
    check_media_type(source.settings.content_types, request.headers)
    webhook = await source.accept(request.headers, body, on_verified=partial(visit.verified, len(body)))
    if webhook is None:
        request.notes["outcome"] = "handshake"
        return Response(200)
    return webhook


def _verified(request: Request, source: WebhookSource, visit: Visit, body: bytes) -> Accepted | Response:
    answer = _handshake(request, source, body)
    if answer is not None:
        return answer
    check_media_type(source.settings.content_types, request.headers)
    # Counted before the event is made of it: a good signature on a useless event is no bad one.
    on_verified = partial(visit.verified, len(body))
    return source.accept(request.headers, body, query=request.query, peer=request.peer, on_verified=on_verified)


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


def _in_words(answer: Response, wanted: SourceSettings) -> Response:
    """Return the answer with the sender's own body."""
    content_type = wanted.success_content_type.encode()
    return answer._replace(body=(wanted.success_body or "").encode(), content_type=content_type)
