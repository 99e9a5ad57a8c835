"""API Gateway -> AWS Lambda: the gateway's verification, then Kafka or SQS; `handler` is the function's entry point.

Writes: events.*, or the queue of `lambda_door`. Blocking: one request at a time, as Lambda calls it; the answer is 202
only after the broker's ack or the queue's answer.
What a container needs is made at its first request and kept: configuration, keys, one producer, one event loop. An
error while making it is answered 503 and made anew at the next request.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from contracts import logs
from contracts.errors import (
    BadSignature,
    ConfigError,
    Forbidden,
    MethodNotAllowed,
    PenstockError,
    Rejected,
    TooLarge,
    UnknownSource,
    UnsupportedMedia,
)
from contracts.logs import logger
from contracts.metrics import WEBHOOKS
from contracts.settings import Settings, SourceSettings, load
from contracts.settings.sources import NO_CONTENT
from contracts.topics import Topics
from gateways.ingress.handshakes.base import GUARDS, HandshakeAnswer, HandshakeRequest
from gateways.ingress.lambda_request import HttpRequest, read_request, source_name
from gateways.ingress.lambda_targets import KafkaTarget, QueueTarget, make_target
from gateways.ingress.media_types import check_media_type
from gateways.ingress.peers import Peers
from gateways.ingress.webhooks import WebhookSource

# Kept for the answer out of the time that the function has left.
_MARGIN_S = 1.0
_RETRY_AFTER_S = 5
_ACCEPTED = {"status": "accepted"}
_SERVER_ERROR = 500

_log = logger("lambda")
Answer = dict[str, Any]


class Context(Protocol):
    """What is used of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        """Return how long this invocation may still take."""
        ...


class Function:
    """One container: the configured sources, the target, and the event loop that its producer belongs to.

    Raises:
        ConfigError: the configuration cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        topics = Topics(settings.kafka.topic_prefix)
        # SNS calls functions by itself, without HTTP; its messages come through a queue (docs/ingress.md).
        own = {name: source for name, source in settings.sources.items() if source.scheme != "sns"}
        for name, source in own.items():
            if source.scheme == "client-certificate":
                message = (
                    f"sources.{name}.scheme: client-certificate needs the gateway: a function sees no proxy's address"
                )
                raise ConfigError(message)
        self._sources = {name: WebhookSource(name, source, topics) for name, source in own.items()}
        self._peers = Peers(settings.gateway.overload.trusted_proxies)
        self._loop = asyncio.new_event_loop()
        self._target: KafkaTarget | QueueTarget = make_target(settings)
        self._loop.run_until_complete(self._target.start())

    def close(self) -> None:
        """End it, for tests: a container just ends."""
        self._loop.run_until_complete(self._target.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def answer(self, event: Mapping[str, Any], remaining_s: float) -> Answer:
        """Answer one request; never raises, since API Gateway would make 502 of it."""
        started_s = time.perf_counter()
        notes: dict[str, Any] = {}
        try:
            answer = self._accept(read_request(event), remaining_s, notes)
            status = answer["statusCode"]
            _log.info("request.accepted", **notes, status=status, duration_s=round(time.perf_counter() - started_s, 6))
        except PenstockError as error:
            answer = answer_to(error)
            detail = getattr(error, "detail", str(error))
            write = _log.warning if answer["statusCode"] >= _SERVER_ERROR else _log.info
            write("request.refused", **notes, status=answer["statusCode"], reason=error.reason, detail=detail)
            if "source" in notes:
                WEBHOOKS.labels(notes["source"], error.reason).inc()
        except Exception:  # noqa: BLE001 - the edge: whatever is wrong with us, the sender is told to come back
            _log.exception("request.failed", **notes)
            answer = unavailable("internal")
        return answer

    def _accept(self, request: HttpRequest, remaining_s: float, notes: dict[str, Any]) -> Answer:
        source = self._sources.get(source_name(request.path, self._settings.lambda_door.source))
        if source is None:
            message = "no such source"
            raise UnknownSource(message)
        notes |= {"source": source.name, "scheme": source.settings.scheme, "body_bytes": len(request.body)}
        methods = ("POST", *source.handshakes.methods)
        if request.method not in methods:
            raise MethodNotAllowed(methods)
        networks = source.settings.allow_networks
        if networks and not self._peers.find(request.peer, request.headers).is_in(networks):
            message = "not from this address"
            raise Forbidden(message)
        self._check_body(source, request)
        shaken = source.handshakes.answer(
            HandshakeRequest(request.method, request.query, request.headers, request.body)
        )
        if shaken is not None:
            WEBHOOKS.labels(source.name, "handshake").inc()
            notes |= {"outcome": "handshake", "detail": shaken.kind}
            return _handshake(shaken)
        check_media_type(source.settings.content_types, request.headers)
        accepted = source.accept(request.headers, request.body, query=request.query)
        notes |= {"event_id": accepted.event.id, "type": accepted.event.type, "key_id": accepted.key_id}
        timeout_s = max(0.001, min(self._settings.lambda_door.timeout_s, remaining_s - _MARGIN_S))
        self._loop.run_until_complete(self._target.put(source, accepted, timeout_s))
        WEBHOOKS.labels(source.name, "accepted").inc()
        return _own_answer(source.settings)

    def _check_body(self, source: WebhookSource, request: HttpRequest) -> None:
        limit_bytes = self._settings.gateway.max_body_bytes
        limit_bytes = min(limit_bytes, source.settings.max_body_bytes or limit_bytes)
        if len(request.body) > limit_bytes:
            message = f"the body is larger than {limit_bytes} bytes"
            raise TooLarge(message)
        encodings = [value for name, value in request.headers if name == b"content-encoding"]
        if any(value.strip().lower() != b"identity" for value in encodings):
            message = "compressed bodies are not accepted"
            raise UnsupportedMedia(message)


def _own_answer(source: SourceSettings) -> Answer:
    """Return the answer to what is accepted: the sender's own, where it wants one."""
    if source.success_body is None:
        empty = source.success_status == NO_CONTENT
        return _answer(source.success_status, _ACCEPTED) | ({"body": ""} if empty else {})
    return {
        "statusCode": source.success_status,
        "headers": {"content-type": source.success_content_type},
        "body": source.success_body,
        "isBase64Encoded": False,
    }


def _handshake(answer: HandshakeAnswer) -> Answer:
    lines = ((b"content-type", answer.content_type), *answer.headers, *GUARDS)
    return {
        "statusCode": 200,
        "headers": {name.decode(): value.decode() for name, value in lines},
        "body": answer.body.decode(),
        "isBase64Encoded": False,
    }


def answer_to(error: PenstockError) -> Answer:
    """Return the answer to an error; a bad signature's is always the same."""
    if isinstance(error, BadSignature):
        return {
            "statusCode": 401,
            "headers": {"content-type": "text/plain", "www-authenticate": 'Signature realm="webhooks"'},
            "body": "Unauthorized",
            "isBase64Encoded": False,
        }
    if isinstance(error, MethodNotAllowed):
        return _answer(error.http_status, {"reason": error.reason}, allow=", ".join(error.allow))
    if isinstance(error, Rejected):
        return _answer(error.http_status, {"reason": error.reason, "detail": str(error)})
    return unavailable(error.reason)


def unavailable(reason: str) -> Answer:
    """Return the answer to a fault of ours: senders come back after it."""
    return _answer(503, {"reason": reason}, **{"retry-after": str(_RETRY_AFTER_S)})


def _answer(status: int, document: dict[str, str], **headers: str) -> Answer:
    return {
        "statusCode": status,
        "headers": {"content-type": "application/json", **headers},
        "body": msgspec.json.encode(document).decode(),
        "isBase64Encoded": False,
    }


_container: dict[str, Function] = {}


def handler(event: Mapping[str, Any], context: Context) -> Answer:
    """Answer a request that API Gateway (formats 1.0 and 2.0) or a function URL hands over."""
    try:
        function = _container.get("function")
        if function is None:
            settings = load()
            logs.configure(settings.logging)
            function = _container["function"] = Function(settings)
    except Exception as error:  # noqa: BLE001 - the edge, as above; also what is wrong with the configuration
        _log.error("function.unusable", error=str(error))
        return unavailable("config_invalid" if isinstance(error, PenstockError) else "internal")
    return function.answer(event, context.get_remaining_time_in_millis() / 1000)
