"""Turns a request to a webhook source into a verified event. Writes: nothing; the caller produces the record."""

import functools
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from contracts import metrics
from contracts.codec import Record, encode_event
from contracts.envelope import DELIVERY, PARTITION_KEY, TRACE_PARENT, Event, digest_id, format_time
from contracts.errors import BadSignature, InvalidPayload
from contracts.repetition import Identity
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.explaining import Explainer
from gateways.ingress.fields import Field, Request, compile_field, compile_id, compile_optional
from gateways.ingress.handshakes.table import Handshakes
from gateways.ingress.header_lines import values_of
from gateways.ingress.keys import resolve_keys
from gateways.ingress.recognising import Recogniser, vouched_text
from gateways.ingress.schemes import scheme_of
from gateways.ingress.secrets import Secrets
from gateways.ingress.text import bounded_key, decode, is_clean
from gateways.ingress.tracing import new_trace_parent
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming, Verified

# Evidence, beside the event's own attributes.
SCHEME_HEADER = "penstock-scheme"
KEY_ID_HEADER = "penstock-key-id"
RECEIVED_AT_HEADER = "penstock-received-at"


class Accepted(Struct, frozen=True):
    """A verified webhook, ready to be produced.

    Attributes:
        key_id: which key signed it.
        signed: the text that the signature covers; None where nothing is signed.
        is_id_signed: the event's id comes from what the signature covers.
        identity: by what a repetition is recognised.
        is_redelivery: an operator wants it done, whether or not it is known.
    """

    event: Event
    record: Record
    key_id: str
    signed: bytes | None = None
    is_id_signed: bool = False
    identity: Identity | None = None
    is_redelivery: bool = False


class WebhookSource:
    """One configured source.

    Args:
        name: of its section; last part of its URL.
        source: its settings.
        topics: names of the topics.
        secrets: how references are read; without AWS Secrets Manager when None.

    Attributes:
        keys: the source's keys, retired and future ones included.
        handshakes: what it answers itself.
        topic: where its events go.

    Raises:
        ConfigError: a secret or template cannot be used; names the source.
    """

    def __init__(self, name: str, source: SourceSettings, topics: Topics, secrets: Secrets | None = None) -> None:
        self.name = name
        self.settings = source
        scheme = scheme_of(source)
        where = f"sources.{name}"
        self.keys = resolve_keys(name, source, scheme, secrets)
        self._verifier = build_verifier(name, source, self.keys)
        self._explainer = Explainer()
        self.handshakes = Handshakes(name, source, self.keys, self._verify)
        # Of this object alone, because a reload that drops a key removes its metric.
        self._last_used = metrics.Children(metrics.KEY_LAST_USED)
        self._noted_s: dict[str, int] = {}
        self._ce_source = source.ce_source or name
        self.topic = topics.events(source.lane)
        self._scheme_header = (SCHEME_HEADER, source.scheme.encode())
        self._type = compile_field(source.type, f"{where}.type")
        self._id = compile_optional(source.id, f"{where}.id", compile_id)
        self._default_id = compile_optional(scheme.default_id, where)
        self._key = compile_optional(source.key, f"{where}.key")
        self._subject = compile_optional(source.subject, f"{where}.subject")
        self._recogniser = Recogniser(name, source, secrets)

    def accept(
        self,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        now: datetime | None = None,
        *,
        query: bytes = b"",
        peer: str = "",
        on_verified: Callable[[], None] | None = None,
    ) -> Accepted:
        """Verify a request and build its event.

        Args:
            headers: names in lower case.
            body: byte for byte.
            now: for tests.
            query: of the URL, as it came.
            peer: address of who connected.
            on_verified: called once the signature is known to be good, whatever the event is like; may raise.

        Raises:
            BadSignature: it is not from the source.
            InvalidPayload: a header is ambiguous, or the field of the type or id is missing or not usable.
        """
        now = now or datetime.now(UTC)
        verified = self._verify(Incoming(headers, body, query, peer), now)
        if on_verified is not None:
            on_verified()
        is_id_signed = self._is_id_signed(verified)
        # Where nothing is signed, the sender vouches for the id as much as for the body: with its key.
        by = self._recogniser.by(is_vouched=is_id_signed or verified.signed is None)
        text = vouched_text(verified, body)
        event = self._event(Request(headers, body), verified, now, text if by == "digest" else None)
        record_headers = encode_event(event)
        record_headers += (
            self._scheme_header,
            (KEY_ID_HEADER, verified.key_id.encode()),
            (RECEIVED_AT_HEADER, event.time.encode()),
        )
        record = Record(self.topic, event.key, body, record_headers)
        identity = self._recogniser.identity(event.id, text, by)
        return Accepted(
            event,
            record,
            verified.key_id,
            verified.signed,
            is_id_signed,
            identity,
            self._recogniser.is_redelivery(headers),
        )

    def _verify(self, request: Incoming, now: datetime) -> Verified:
        try:
            verified = self._verifier.verify(request, now)
        except BadSignature as error:
            error.detail = self._explainer.explain(self._verifier, request, now, error.detail)
            metrics.SIGNATURES_REFUSED.labels(self.name, error.detail).inc()
            raise
        now_s = int(now.timestamp())
        if self._noted_s.get(verified.key_id) != now_s:
            # Of one second one request is enough.
            self._noted_s[verified.key_id] = now_s
            self._last_used[self.name, verified.key_id].set(now_s)
        return verified

    def _event(self, request: Request, verified: Verified, now: datetime, recurring: bytes | None) -> Event:
        """Return the event.

        Args:
            request: for the fields.
            verified: what vouches for it.
            now: when it came.
            recurring: what is equal in every delivery of it, where the id may differ from one to the next.
        """
        event_id = self._event_id(request, verified)
        key = self._partition_key(self._key, request) if self._key else None
        if key is None:
            # Where the id may differ from one delivery of an event to the next, its place on the log must not.
            key = event_id if recurring is None else digest_id(self._ce_source, recurring)
        return Event(
            id=event_id,
            source=self._ce_source,
            type=_required(self._type, request, "type"),
            data=request.body,
            time=format_time(now),
            subject=self._subject_of(self._subject, request) if self._subject else "",
            datacontenttype=_content_type(request),
            extensions={
                PARTITION_KEY: key,
                DELIVERY: "notify",
                # A sender's own traceparent is not to be trusted with our traces.
                TRACE_PARENT: new_trace_parent(),
            },
        )

    def _event_id(self, request: Request, verified: Verified) -> str:
        if self._id is not None:
            text = self._id.expand(request)
            if not text:
                message = f"the event's id is missing: {self._id.template}"
                raise InvalidPayload(message)
        else:
            text = verified.id or (self._default_id.expand(request) if self._default_id else None)
        return text if text and is_clean(text) else digest_id(self._ce_source, request.body)

    def _is_id_signed(self, verified: Verified) -> bool:
        """Tell whether nobody but the sender can have chosen the event's id; a digest of the body counts as that."""
        if verified.signed is None:
            return False
        if not verified.is_body_exact:
            # Not even a digest of the body is the sender's: the same signature fits other bytes.
            return verified.signs_id and self._id is None
        if self._id is not None:
            return self._id.headers <= verified.signed_headers
        return verified.signs_id

    def _partition_key(self, field: Field, request: Request) -> str | None:
        text = field.expand(request)
        if text is None:
            metrics.KEY_FALLBACKS.labels(self.name).inc()
            return None
        return bounded_key(text)

    def _subject_of(self, field: Field, request: Request) -> str:
        text = field.expand(request)
        return text if text and is_clean(text) else ""


def _required(field: Field, request: Request, name: str) -> str:
    text = field.expand(request)
    if not text or not is_clean(text):
        message = f"the event's {name} is missing or not usable: {field.template}"
        raise InvalidPayload(message)
    return text


def _content_type(request: Request) -> str:
    values = values_of(request.headers, b"content-type")
    return _usable(values[0]) if len(values) == 1 else ""


@functools.lru_cache(maxsize=64)
def _usable(raw: bytes) -> str:
    """Return a content type as an attribute; there are few of them."""
    text = decode(raw)
    return text if text and is_clean(text) and text.isascii() else ""
