"""The one codec: events and outcomes to and from Kafka records, CloudEvents 1.0 Kafka binding, binary mode.

Written out here, not taken from the CloudEvents SDK, because this runs twice per event: the SDK costs 31 us there,
parses the body, and mends what it should refuse (docs/adr/0003). Tests hold the two against each other, both ways.

Source: CloudEvents Kafka Protocol Binding 1.0.2 (checked 2026-11).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import msgspec

from contracts.envelope import (
    ATTRIBUTE_NAME,
    EVENT_ID,
    EVENT_SOURCE,
    EVENT_TYPE,
    OWNER,
    PARTITION_KEY,
    TRACE_PARENT,
    Event,
    format_time,
    parse_time,
    result_id,
)
from contracts.errors import Undecodable
from contracts.payloads import DeadLetter

Headers = list[tuple[str, bytes]]
T = TypeVar("T")

SOURCE_APP = "penstock-source-app"
SOURCE_TOPIC = "penstock-source-topic"
SOURCE_PARTITION = "penstock-source-partition"
SOURCE_OFFSET = "penstock-source-offset"
SOURCE_TIMESTAMP = "penstock-source-timestamp-ms"
DEAD_LETTER = "penstock-dead-letter"

_CONTEXT = ("id", "source", "type", "time", "subject", "dataschema")
_JSON = b"application/json"
_encoder = msgspec.json.Encoder()


class Record(NamedTuple):
    """What is handed to a producer; a partition of None lets the key choose."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers
    partition: int | None = None
    timestamp_ms: int | None = None


class Position(NamedTuple):
    """Where a record lies, and its timestamp: offset alone does not survive a recreated topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def encode_event(event: Event) -> Headers:
    """Return the record headers of an event; its value is `event.data`, its key `event.key`."""
    headers: Headers = [("ce_specversion", b"1.0")]
    for name in _CONTEXT:
        text = getattr(event, name)
        if text:
            headers.append((f"ce_{name}", text.encode()))
    if event.datacontenttype:
        headers.append(("content-type", event.datacontenttype.encode()))
    for name, text in event.extensions.items():
        if name != PARTITION_KEY:  # the binding carries it as the record's key
            headers.append((f"ce_{name}", text.encode()))
    if TRACE_PARENT in event.extensions:
        headers.append((TRACE_PARENT, event.extensions[TRACE_PARENT].encode()))
    return headers


def decode_event(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> Event:
    """Rebuild an event from a record.

    Raises:
        Undecodable: null value, header missing, repeated, empty or not UTF-8, wrong specversion, bad attribute name.
    """
    if value is None:
        message = "null value: a tombstone is not an event"
        raise Undecodable(message)
    attributes = _attributes(headers)
    if attributes.pop("specversion", None) != "1.0":
        message = "ce_specversion is missing or not 1.0: not a CloudEvents binary-mode record"
        raise Undecodable(message)
    context = {name: attributes.pop(name, "") for name in _CONTEXT}
    for name in ("id", "source", "type"):
        if not context[name]:
            message = f"ce_{name} is missing or empty"
            raise Undecodable(message)
    content_type = attributes.pop("datacontenttype", "")
    if key is not None:
        attributes[PARTITION_KEY] = _text("key", key)
    return Event(data=value, datacontenttype=content_type, extensions=attributes, **context)


def _attributes(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header, raw in headers:
        if header == "content-type":
            name = "datacontenttype"
        elif header.startswith("ce_"):
            name = header[3:]
            if not ATTRIBUTE_NAME.fullmatch(name):
                message = f"header {header[:40]!r} is not a CloudEvents attribute"
                raise Undecodable(message)
        else:
            continue
        if name in found:
            message = f"header {header} stands there twice"
            raise Undecodable(message)
        found[name] = _text(header, raw)
    return found


def _text(what: str, raw: bytes | None) -> str:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError as error:
        message = f"{what} is not UTF-8"
        raise Undecodable(message) from error


def encodable(text: str) -> str:
    """Replace lone surrogates, which no record can carry; a provider's text cut inside an emoji has one."""
    return text if text.isascii() else text.encode("utf-8", errors="replace").decode()


def encode_json(payload: msgspec.Struct) -> bytes:
    """Return a payload as JSON."""
    return _encoder.encode(payload)


def decode_json(raw: bytes, kind: type[T]) -> T:
    """Read a payload; unknown fields are ignored, so that a newer minor version can be read.

    Raises:
        Undecodable: not JSON, or not of that shape.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        message = f"not a {kind.__name__}: {error}"
        raise Undecodable(message) from error


def decode_any_json(raw: bytes) -> Any:
    """Read any JSON.

    Raises:
        Undecodable: not JSON.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"not JSON: {error}"
        raise Undecodable(message) from error


def outcome_headers(event: Event, outcome_type: str, completed_at: str, app_id: str, position: Position) -> Headers:
    """Return the headers of an event's terminal record.

    Args:
        event: the event that ended.
        outcome_type: one of contracts.payloads.TERMINAL_TYPES.
        completed_at: RFC 3339.
        app_id: who made it.
        position: of the event's record.
    """
    outcome = Event(
        id=result_id(event.source, event.id),
        source=f"penstock/{app_id}",
        type=outcome_type,
        time=completed_at,
        subject=event.subject,
        data=b"",
        datacontenttype=_JSON.decode(),
        extensions={EVENT_ID: event.id, EVENT_SOURCE: event.source, EVENT_TYPE: event.type}
        | {name: event.extensions[name] for name in (OWNER, TRACE_PARENT, "delivery") if name in event.extensions},
    )
    return encode_event(outcome) + position_headers(app_id, position)


def position_headers(app_id: str, position: Position) -> Headers:
    """Return the headers that tie a record to the event record it answers."""
    return [
        (SOURCE_APP, app_id.encode()),
        (SOURCE_TOPIC, position.topic.encode()),
        (SOURCE_PARTITION, b"%d" % position.partition),
        (SOURCE_OFFSET, b"%d" % position.offset),
        (SOURCE_TIMESTAMP, b"%d" % position.timestamp_ms),
    ]


def source_position(headers: Iterable[tuple[str, bytes | None]]) -> tuple[str, Position] | None:
    """Return (application id, position of the event) that a terminal record answers; None when not one of ours."""
    found = {name: raw for name, raw in headers if name.startswith("penstock-source-") and raw is not None}
    try:
        position = Position(
            found[SOURCE_TOPIC].decode(),
            int(found[SOURCE_PARTITION]),
            int(found[SOURCE_OFFSET]),
            int(found[SOURCE_TIMESTAMP]),
        )
        return found[SOURCE_APP].decode(), position
    except (KeyError, ValueError):
        return None


def dead_letter_headers(original: Iterable[tuple[str, bytes | None]], letter: DeadLetter) -> Headers:
    """Return the original headers untouched, plus the one that says why it ended here."""
    kept = [(name, raw or b"") for name, raw in original if name != DEAD_LETTER]
    return [*kept, (DEAD_LETTER, encode_json(letter))]


def dead_letter(headers: Iterable[tuple[str, bytes | None]]) -> DeadLetter:
    """Read why a dead-letter record ended there.

    Raises:
        Undecodable: the header is missing or of another shape.
    """
    for name, raw in headers:
        if name == DEAD_LETTER and raw is not None:
            return decode_json(raw, DeadLetter)
    message = f"no {DEAD_LETTER} header"
    raise Undecodable(message)


__all__ = [
    "DEAD_LETTER",
    "Headers",
    "Position",
    "Record",
    "dead_letter",
    "dead_letter_headers",
    "decode_any_json",
    "decode_event",
    "decode_json",
    "encodable",
    "encode_event",
    "encode_json",
    "format_time",
    "outcome_headers",
    "parse_time",
    "position_headers",
    "source_position",
]
