"""Turns a request of an authenticated API caller into an event. Writes: nothing; the caller produces the record."""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qs

from contracts.codec import Record, encode_event
from contracts.envelope import (
    CALLBACK_URL,
    DELIVERY,
    EVENT_ID,
    EVENT_SOURCE,
    EVENT_TYPE,
    EXPIRY_TIME,
    OWNER,
    PARTITION_KEY,
    REPLY_TO,
    TRACE_PARENT,
    Delivery,
    Event,
    format_time,
    parse_time,
)
from contracts.errors import InvalidPayload
from contracts.repetition import identify
from contracts.topics import LANES, Topics
from gateways.ingress.callers import Caller
from gateways.ingress.cloudevents import parse
from gateways.ingress.once import Candidate
from gateways.ingress.recognising import REDELIVERY_HEADER
from gateways.ingress.text import MAX_ID_CHARS, bounded_key, is_clean, single_header
from gateways.ingress.tracing import is_trace_parent, is_trace_state, new_trace_parent

TRACE_STATE = "tracestate"
# Ours to set: a caller that could would take another's results, have its own sent to another gateway's callers, or
# forge our outcome records.
RESERVED = frozenset({OWNER, EVENT_ID, EVENT_SOURCE, EVENT_TYPE, REPLY_TO})
_CONTEXT = frozenset({"specversion", "id", "source", "type", "time", "subject", "datacontenttype", "dataschema"})
_SHORT = ("id", "source", "type", PARTITION_KEY)


class Posted(NamedTuple):
    """An event of a caller, ready to be produced."""

    event: Event
    record: Record
    lane: str


def accept(
    caller: Caller,
    headers: list[tuple[bytes, bytes]],
    query: bytes,
    body: bytes,
    topics: Topics,
    now: datetime | None = None,
    *,
    delivery: Delivery = "notify",
    usual_lane: str = "standard",
    reply_to: str | None = None,
) -> Posted:
    """Build the event of a request.

    Args:
        caller: who sends it.
        headers: of the request.
        query: of its URL.
        body: byte for byte.
        topics: the table.
        now: for tests.
        delivery: how the caller gets the outcome.
        usual_lane: when none is asked for and the caller may use it.
        reply_to: where a copy of the outcome goes.

    Raises:
        InvalidPayload: not an event, or an attribute is wrong, reserved or not available.
        UnsupportedMedia: a batch, or an event format other than JSON.
        Forbidden: the caller may not claim the source, use the lane, or ask for a callback.
    """
    now = now or datetime.now(UTC)
    lane = caller.choose_lane(_wanted_lane(headers, query), usual_lane)
    parsed = parse(headers, body)
    attributes = parsed.attributes
    event_id = _event_id(attributes, headers)
    source = attributes.get("source", caller.id)
    caller.check_source(source)
    if "type" not in attributes:
        message = "the event's type is missing: send the header ce-type, or a structured CloudEvent"
        raise InvalidPayload(message)
    _check_lengths(attributes)
    if CALLBACK_URL in attributes:
        caller.check_callback(attributes[CALLBACK_URL])
    event = Event(
        id=event_id,
        source=source,
        type=attributes["type"],
        data=parsed.data,
        time=_time(attributes, now),
        subject=attributes.get("subject", ""),
        datacontenttype=attributes.get("datacontenttype", "application/json" if parsed.data else ""),
        dataschema=attributes.get("dataschema", ""),
        extensions=_extensions(attributes, headers, now, delivery)
        | {PARTITION_KEY: bounded_key(attributes.get(PARTITION_KEY, event_id)), OWNER: caller.id}
        | ({REPLY_TO: reply_to} if reply_to else {}),
    )
    return Posted(event, Record(topics.events(lane), event.key, event.data, encode_event(event)), lane)


def candidate(sent: Posted, headers: list[tuple[bytes, bytes]], window_s: float) -> Candidate:
    """Return an event ready to be produced once: again only where its caller says that this is wanted.

    Args:
        sent: the event; one whose id we made up is never repeated.
        headers: of the request.
        window_s: how long its id is recognised.
    """
    event = sent.event
    identity = None
    if has_own_id(headers):
        identity = identify(event.owner, event.source, event.id, event.data, "id", window_s)
    is_redelivery = single_header(headers, REDELIVERY_HEADER) == "true"
    return Candidate(event.id, sent.record, identity, event.owner, is_redelivery)


def has_own_id(headers: list[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request names its event, so that it can be recognised when it comes again."""
    if any(name in {b"idempotency-key", b"ce-id"} for name, _ in headers):
        return True
    return (single_header(headers, b"content-type") or "").lower().startswith("application/cloudevents")


def _wanted_lane(headers: list[tuple[bytes, bytes]], query: bytes) -> str | None:
    found = {value.decode("ascii", "replace") for name, value in headers if name == b"penstock-lane"}
    found |= set(parse_qs(query.decode("ascii", "replace"), keep_blank_values=True).get("lane", ()))
    if not found:
        return None
    if len(found) > 1 or not found <= set(LANES):
        message = f"lane must be one of {', '.join(LANES)}"
        raise InvalidPayload(message)
    return found.pop()


def _event_id(attributes: Mapping[str, str], headers: list[tuple[bytes, bytes]]) -> str:
    ids = [value for name, value in headers if name == b"idempotency-key"]
    if not ids:
        return attributes.get("id") or str(uuid.uuid4())
    # The IETF draft makes the header a quoted string; most clients send it bare.
    text = (single_header(headers, b"idempotency-key") or "").strip('"')
    if not is_clean(text):
        message = f"header idempotency-key must stand there once, clean, with at most {MAX_ID_CHARS} characters"
        raise InvalidPayload(message)
    if attributes.get("id", text) != text:
        message = "the event's id and the header idempotency-key differ"
        raise InvalidPayload(message)
    return text


def _check_lengths(attributes: Mapping[str, str]) -> None:
    for name in _SHORT:
        if len(attributes.get(name, "")) > MAX_ID_CHARS:
            message = f"attribute {name} is longer than {MAX_ID_CHARS} characters"
            raise InvalidPayload(message)


def _time(attributes: Mapping[str, str], now: datetime) -> str:
    text = attributes.get("time")
    if text is None:
        return format_time(now)
    if parse_time(text) is None:
        message = "time is not an RFC 3339 instant with an offset"
        raise InvalidPayload(message)
    return text


def _extensions(
    attributes: Mapping[str, str], headers: list[tuple[bytes, bytes]], now: datetime, delivery: Delivery
) -> dict[str, str]:
    extensions = {name: text for name, text in attributes.items() if name not in _CONTEXT}
    for name in RESERVED & extensions.keys():
        message = f"extension {name} is set by the gateway"
        raise InvalidPayload(message)
    # An accepted event can be watched later, by its ticket.
    allowed = ("notify", "stream") if delivery == "notify" else (delivery,)
    if extensions.setdefault(DELIVERY, delivery) not in allowed:
        message = f"delivery: only {' or '.join(allowed)} is available here"
        raise InvalidPayload(message)
    if EXPIRY_TIME in extensions:
        expires_at = parse_time(extensions[EXPIRY_TIME])
        if expires_at is None or expires_at <= now:
            message = "expirytime must be an RFC 3339 instant in the future"
            raise InvalidPayload(message)
    return extensions | _trace(extensions, headers)


def _trace(extensions: dict[str, str], headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Continue the caller's trace when it is valid, else start one; a tracestate goes with its traceparent only."""
    parent = extensions.pop(TRACE_PARENT, None) or single_header(headers, TRACE_PARENT.encode()) or ""
    state = extensions.pop(TRACE_STATE, None) or single_header(headers, TRACE_STATE.encode()) or ""
    if not is_trace_parent(parent):
        return {TRACE_PARENT: new_trace_parent()}
    return {TRACE_PARENT: parent} | ({TRACE_STATE: state} if is_trace_state(state) else {})
