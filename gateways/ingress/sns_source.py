"""A webhook source that is Amazon SNS: notifications become events, subscriptions of known topics are confirmed.

Writes: nothing; the caller produces the record. Blocking: a certificate is fetched once a day, before its first message
is verified; messages of its URL wait for it.
"""

from collections.abc import Callable
from datetime import UTC, datetime

from msgspec.structs import replace

from contracts import metrics
from contracts.codec import Record, decode_any_json, encode_event
from contracts.envelope import DELIVERY, PARTITION_KEY, TRACE_PARENT, Event, format_time, parse_time
from contracts.errors import BadSignature, ConfigError, InvalidPayload, Undecodable
from contracts.logs import logger
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.fields import Field, Request, compile_field, compile_id, compile_optional
from gateways.ingress.keys import Key
from gateways.ingress.recognising import Recogniser
from gateways.ingress.secrets import Secrets
from gateways.ingress.sns import (
    SnsMessage,
    check_certificate_url,
    check_subscribe_url,
    read_message,
    verify,
)
from gateways.ingress.sns_certificates import Certificates
from gateways.ingress.sns_fetch import Fetch, fetch
from gateways.ingress.text import bounded_key, is_clean
from gateways.ingress.tracing import new_trace_parent
from gateways.ingress.webhooks import RECEIVED_AT_HEADER, SCHEME_HEADER, Accepted

# SNS repeats a message for an hour at most (Developer Guide, "Message delivery retries", checked 2026-11).
_TOLERANCE_S = 3600.0
_RAW_DELIVERY = b"x-amz-sns-rawdelivery"

_log = logger("gateway")


class SnsSource:
    """One configured source of scheme sns.

    Args:
        name: of its section; last part of its URL.
        source: its settings.
        topics: names of the topics.
        fetch_url: in place of the network, for tests.
        secrets: how references are read; without AWS Secrets Manager when None.

    Raises:
        ConfigError: a template or the secret for redeliveries cannot be used; names the source.
    """

    def __init__(
        self,
        name: str,
        source: SourceSettings,
        topics: Topics,
        fetch_url: Fetch = fetch,
        secrets: Secrets | None = None,
    ) -> None:
        if source.sns is None:
            message = f"sources.{name}.sns: is needed for scheme sns"
            raise ConfigError(message)
        where = f"sources.{name}"
        self.name = name
        self.settings = source
        # Verified by certificate.
        self.keys: tuple[Key, ...] = ()
        self._sns = source.sns
        self._fetch = fetch_url
        self._certificates = Certificates(fetch_url, source.sns.fetch_timeout_s)
        self._tolerance_s = source.tolerance_s or _TOLERANCE_S
        self._recogniser = Recogniser(name, source, secrets)
        self._ce_source = source.ce_source or name
        self.topic = topics.events(source.lane)
        self._type = compile_field(source.type, f"{where}.type")
        self._id = compile_optional(source.id, f"{where}.id", compile_id)
        self._key = compile_optional(source.key, f"{where}.key")
        self._subject = compile_optional(source.subject, f"{where}.subject")

    async def accept(
        self,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        now: datetime | None = None,
        *,
        on_verified: Callable[[], None] | None = None,
    ) -> Accepted | None:
        """Verify a message; return a notification's event, and None for what has been dealt with here.

        Args:
            headers: names in lower case.
            body: byte for byte.
            now: for tests.
            on_verified: called once the signature is known to be good, whatever the event is like; may raise.

        Raises:
            BadSignature: it is not from one of the topics.
            InvalidPayload: not a message of SNS, or the field of the type or id is missing.
            Retryable: the certificate, or the confirmation, is not to be had now; SNS comes again.
        """
        now = now or datetime.now(UTC)
        try:
            message = await self._verified(headers, body, now)
        except BadSignature as error:
            metrics.SIGNATURES_REFUSED.labels(self.name, error.detail).inc()
            raise
        if on_verified is not None:
            on_verified()
        if message.type == "Notification":
            return replace(self._accepted(message, now), is_redelivery=self._recogniser.is_redelivery(headers))
        await self._shake_hands(message)
        return None

    async def _verified(self, headers: list[tuple[bytes, bytes]], body: bytes, now: datetime) -> SnsMessage:
        if any(name == _RAW_DELIVERY for name, _ in headers):
            # Without its envelope a message has no signature.
            raise BadSignature("raw_delivery")  # noqa: EM101 - a slug
        message = read_message(body)
        if message.topic_arn not in self._sns.topic_arns:
            raise BadSignature("unknown_topic")  # noqa: EM101 - a slug
        # Nothing is fetched for a topic that is not ours, nor from anywhere but its own region.
        certificate = await self._certificates.get(check_certificate_url(message))
        verify(message, certificate, self._sns.signature_versions, self._tolerance_s, now)
        return message

    async def _shake_hands(self, message: SnsMessage) -> None:
        if message.type == "UnsubscribeConfirmation":
            _log.warning("sns.unsubscribed", source=self.name, topic=message.topic_arn)
            return
        url = check_subscribe_url(message)
        if not self._sns.confirm:
            _log.warning("sns.confirmation_wanted", source=self.name, topic=message.topic_arn)
            return
        await self._fetch(url, self._sns.fetch_timeout_s)
        _log.info("sns.subscribed", source=self.name, topic=message.topic_arn)

    def _accepted(self, message: SnsMessage, now: datetime) -> Accepted:
        data = message.message.encode("utf-8", "replace")
        lines = {"message-id": message.message_id, "topic-arn": message.topic_arn, "subject": message.subject or ""}
        request = Request([(f"x-amz-sns-{name}".encode(), text.encode()) for name, text in lines.items()], data)
        event_id = _required(self._id, request, message.message_id, "id")
        received_at = format_time(now)
        key = self._key.expand(request) if self._key else None
        if self._key is not None and key is None:
            metrics.KEY_FALLBACKS.labels(self.name).inc()
        subject = (self._subject.expand(request) if self._subject else message.subject) or ""
        event = Event(
            id=event_id,
            source=self._ce_source,
            type=_required(self._type, request, "", "type"),
            data=data,
            time=message.timestamp if parse_time(message.timestamp) else received_at,
            subject=subject if is_clean(subject) else "",
            datacontenttype=_content_type(data),
            extensions={
                PARTITION_KEY: bounded_key(key) if key else event_id,
                DELIVERY: "notify",
                TRACE_PARENT: new_trace_parent(),
            },
        )
        evidence = [(SCHEME_HEADER, b"sns"), (RECEIVED_AT_HEADER, received_at.encode())]
        record = Record(self.topic, event.key, data, encode_event(event) + evidence)
        identity = self._recogniser.identity(event.id, data, self._recogniser.by(is_vouched=True))
        return Accepted(event, record, message.topic_arn, data, is_id_signed=True, identity=identity)


def _required(field: Field | None, request: Request, default: str, name: str) -> str:
    text = field.expand(request) if field else default
    if not text or not is_clean(text):
        message = f"the event's {name} is missing or not usable: {field.template if field else 'MessageId'}"
        raise InvalidPayload(message)
    return text


def _content_type(data: bytes) -> str:
    try:
        decode_any_json(data)
    except Undecodable:
        return "text/plain; charset=utf-8"
    return "application/json"
