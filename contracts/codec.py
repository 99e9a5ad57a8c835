"""The one codec: events and outcomes to and from Kafka records, CloudEvents 1.0 Kafka binding, binary mode.

Written out here, not taken from the CloudEvents SDK, because this runs twice per event: the SDK costs 31 us there,
parses the body, and mends what it should refuse (docs/adr/0003). Tests hold the two against each other, both ways.

Source: CloudEvents Kafka Protocol Binding 1.0.2 (checked 2026-11).
"""

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from contracts.envelope import (
    ATTRIBUTE_NAME,
    CALLBACK_URL,
    CONNECTION_ID,
    DELIVERY,
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
from contracts.payloads import DeadLetter, DeliveryNote, Redrive, Resolution, RetryNote

Headers = list[tuple[str, bytes]]
# As they lie on the log: a foreign record may have headers without a value.
RecordHeaders = Sequence[tuple[str, bytes | None]]
T = TypeVar("T")

SOURCE_APP = "penstock-source-app"
SOURCE_TOPIC = "penstock-source-topic"
SOURCE_PARTITION = "penstock-source-partition"
SOURCE_OFFSET = "penstock-source-offset"
SOURCE_TIMESTAMP = "penstock-source-timestamp-ms"
DEAD_LETTER = "penstock-dead-letter"
RESOLUTION = "penstock-dead-letter-resolution"
REDRIVE = "penstock-redrive"
RETRY = "penstock-retry"
DELIVERY_NOTE = "penstock-delivery"

# A position, and the note.
_RETRY_HEADERS = 6
# Of header names that are remembered together.
_MAX_KEPT_NAMES, _MAX_KEPT_CHARS = 64, 4096
_FIRST, _SECOND = operator.itemgetter(0), operator.itemgetter(1)
_JSON_CONTENT = ("content-type", b"application/json")
_VERSION = ("ce_specversion", b"1.0")
# What an outcome has in common with its event.
_PASSED_ON = (OWNER, DELIVERY, CONNECTION_ID, CALLBACK_URL, TRACE_PARENT)
_CE_EVENT_ID, _CE_EVENT_SOURCE, _CE_EVENT_TYPE = f"ce_{EVENT_ID}", f"ce_{EVENT_SOURCE}", f"ce_{EVENT_TYPE}"
_PASSED_ON_NAMES = frozenset(_PASSED_ON)
_encoder = msgspec.json.Encoder()


class Record(NamedTuple):
    """What is handed to a producer; a partition of None lets the key choose."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
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
    headers: Headers = [
        _VERSION,
        ("ce_id", event.id.encode()),
        ("ce_source", event.source.encode()),
        ("ce_type", event.type.encode()),
    ]
    if event.time:
        headers.append(("ce_time", event.time.encode()))
    if event.subject:
        headers.append(("ce_subject", event.subject.encode()))
    if event.dataschema:
        headers.append(("ce_dataschema", event.dataschema.encode()))
    if event.datacontenttype:
        headers.append(("content-type", event.datacontenttype.encode()))
    for name, text in event.extensions.items():
        if name != PARTITION_KEY:  # the binding carries it as the record's key
            headers.append((f"ce_{name}", text.encode()))
    if (parent := event.extensions.get(TRACE_PARENT)) is not None:
        headers.append((TRACE_PARENT, parent.encode()))
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
    take = attributes.pop
    if take("specversion", None) != "1.0":
        message = "ce_specversion is missing or not 1.0: not a CloudEvents binary-mode record"
        raise Undecodable(message)
    # Written out: a loop over the names costs more than all the rest.
    event_id, source, kind = take("id", ""), take("source", ""), take("type", "")
    if not (event_id and source and kind):
        missing = "id" if not event_id else "source" if not source else "type"
        message = f"ce_{missing} is missing or empty"
        raise Undecodable(message)
    time, subject, schema = take("time", ""), take("subject", ""), take("dataschema", "")
    content_type = take("datacontenttype", "")
    if key is not None:
        try:
            attributes[PARTITION_KEY] = key.decode()
        except UnicodeDecodeError as error:
            message = "key is not UTF-8"
            raise Undecodable(message) from error
    return Event(
        id=event_id, source=source, type=kind, data=value, time=time, subject=subject, datacontenttype=content_type,
        dataschema=schema, extensions=attributes,
    )  # fmt: skip


def _attributes(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    pairs = tuple(headers)
    header_names = tuple(map(_FIRST, pairs))
    # What is kept has to be small: whoever may produce chooses the names.
    is_small = len(pairs) <= _MAX_KEPT_NAMES and sum(map(len, header_names)) <= _MAX_KEPT_CHARS
    names = (_names if is_small else _names.__wrapped__)(header_names)
    try:
        found: dict[Any, str] = dict(zip(names, map(bytes.decode, map(_SECOND, pairs)), strict=True))
        found.pop(None, None)
    except (TypeError, UnicodeDecodeError):  # a header without a value, or one that is not text
        found = {name: _text(header, raw) for name, (header, raw) in zip(names, pairs, strict=True) if name}
    return found


def _text(header: str, raw: bytes | None) -> str:
    try:
        return (raw or b"").decode()
    except UnicodeDecodeError as error:
        message = f"{header} is not UTF-8"
        raise Undecodable(message) from error


# A sender's events have the same headers, in the same order.
@functools.lru_cache(maxsize=1024)
def _names(headers: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return the attribute that each header carries; None for one that is not CloudEvents'."""
    names = tuple(map(_attribute, headers))
    seen: set[str] = set()
    for header, name in zip(headers, names, strict=True):
        if name in seen:
            message = f"header {header} stands there twice"
            raise Undecodable(message)
        if name is not None:
            seen.add(name)
    return names


def _attribute(header: str) -> str | None:
    """Return the attribute that a header carries; None for a header that is not CloudEvents'."""
    if header == "content-type":
        return "datacontenttype"
    if not header.startswith("ce_"):
        if not header.isascii() and any("\udc80" <= char <= "\udcff" for char in header):
            message = "the name of a header is not UTF-8"
            raise Undecodable(message)
        return None
    if not ATTRIBUTE_NAME.fullmatch(header[3:]):
        message = f"header {header[:40]!r} is not a CloudEvents attribute"
        raise Undecodable(message)
    return header[3:]


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
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
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
        outcome_type: one of contracts.payloads.TERMINAL_TYPES, or its DUPLICATE_TYPE.
        completed_at: RFC 3339.
        app_id: who made it.
        position: of the event's record.
    """
    event_id, source, extensions = event.id, event.source, event.extensions
    headers: Headers = [
        _VERSION, ("ce_id", result_id(source, event_id).encode()), ("ce_source", b"penstock/" + app_id.encode()),
        ("ce_type", outcome_type.encode()), ("ce_time", completed_at.encode()), _JSON_CONTENT,
        (_CE_EVENT_ID, event_id.encode()), (_CE_EVENT_SOURCE, source.encode()), (_CE_EVENT_TYPE, event.type.encode()),
    ]  # fmt: skip
    if event.subject:
        headers.append(("ce_subject", event.subject.encode()))
    if not _PASSED_ON_NAMES.isdisjoint(extensions):
        for name in _PASSED_ON:
            text = extensions.get(name)
            if text is not None:
                headers.append((f"ce_{name}", text.encode()))
                if name == TRACE_PARENT:
                    headers.append((TRACE_PARENT, text.encode()))
    return headers + position_headers(app_id, position)


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


def dead_letter_headers(original: RecordHeaders, letter: DeadLetter) -> list[tuple[str, bytes | None]]:
    """Return the original headers untouched, plus the one that says why it ended here.

    Ours is the last: what the original brought under that name stays as well, and means nothing.
    """
    return [*((_writable(name), raw) for name, raw in original), (DEAD_LETTER, encode_json(letter))]


def _writable(name: str) -> str:
    """Write a header name that is not UTF-8 with escapes: our producer cannot carry its bytes."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def dead_letter(headers: RecordHeaders) -> DeadLetter:
    """Read why a dead-letter record ended there.

    Raises:
        Undecodable: the header is missing or of another shape.
    """
    for name, raw in reversed(headers):
        if name == DEAD_LETTER and raw is not None:
            return decode_json(raw, DeadLetter)
    message = f"no {DEAD_LETTER} header"
    raise Undecodable(message)


def resolution(headers: RecordHeaders) -> Resolution | None:
    """Return what became of a dead letter; None when the record does not say so.

    Ours is the last header: a letter has the original's in front of its own, whatever names they have.

    Raises:
        Undecodable: the header is of another shape.
    """
    name, raw = headers[-1] if headers else ("", None)
    return decode_json(raw, Resolution) if name == RESOLUTION and raw is not None else None


def resolution_headers(resolved: Resolution) -> Headers:
    """Return the headers of the record that says what became of a dead letter; it lies on the letter's partition."""
    return [(RESOLUTION, encode_json(resolved))]


def redrive_headers(letter: RecordHeaders, redrive: Redrive) -> list[tuple[str, bytes | None]]:
    """Return the original headers of a dead letter untouched, plus the one that says that it was put back."""
    last = max((n for n, (name, raw) in enumerate(letter) if name == DEAD_LETTER and raw is not None), default=-1)
    kept = [header for n, header in enumerate(letter) if n != last and header[0] != REDRIVE]
    return [*kept, (REDRIVE, encode_json(redrive))]


def redrive_of(headers: RecordHeaders) -> Redrive | None:
    """Return which dead letter an event's record was made from; None when from none, or when that is not readable."""
    # Asked of every event, and true of next to none.
    if REDRIVE not in map(_FIRST, headers):
        return None
    for name, raw in headers:
        if name == REDRIVE and raw is not None:
            try:
                return decode_json(raw, Redrive)
            except Undecodable:
                return None
    return None


def retry_headers(
    original: RecordHeaders, note: RetryNote, app_id: str, position: Position
) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record on the retry topic: the original's untouched, then ours.

    Args:
        original: of the event's own record.
        note: what the next attempt needs to know.
        app_id: whose worker parked it, and will take it up.
        position: of the record that it stands for, which is thereby answered: an event's, or an earlier retry's.
    """
    return [*original, *position_headers(app_id, position), (RETRY, encode_json(note))]


def parked_event(headers: RecordHeaders) -> tuple[str, RetryNote, RecordHeaders]:
    """Return of a record on the retry topic: application id, note, and the original's headers.

    Raises:
        Undecodable: it was not written by a worker.
    """
    ours = headers[-_RETRY_HEADERS:]
    found = source_position(ours)
    if found is None or len(ours) != _RETRY_HEADERS or ours[-1][0] != RETRY:
        message = f"no {RETRY} header behind a position: not a record of the retry topic"
        raise Undecodable(message)
    return found[0], decode_json(ours[-1][1] or b"", RetryNote), headers[:-_RETRY_HEADERS]


def delivery_headers(original: RecordHeaders, note: DeliveryNote) -> list[tuple[str, bytes | None]]:
    """Return the headers of a record that waits for its delivery, or has none: the original's, then ours."""
    return [*original, (DELIVERY_NOTE, encode_json(note))]


def delivery_note(headers: RecordHeaders) -> tuple[DeliveryNote, RecordHeaders]:
    """Return what became of a delivery so far, and the original's headers.

    Raises:
        Undecodable: the last header is not ours, or of another shape.
    """
    if not headers or headers[-1][0] != DELIVERY_NOTE:
        message = f"no {DELIVERY_NOTE} header at the end: not a record of a door"
        raise Undecodable(message)
    return decode_json(headers[-1][1] or b"", DeliveryNote), headers[:-1]


__all__ = [
    "DEAD_LETTER", "DELIVERY_NOTE", "REDRIVE", "RESOLUTION", "RETRY", "Headers", "Position", "Record",
    "RecordHeaders", "dead_letter", "dead_letter_headers", "decode_any_json", "decode_event", "decode_json",
    "delivery_headers", "delivery_note", "encodable", "encode_event", "encode_json", "format_time",
    "outcome_headers", "parked_event", "parse_time", "position_headers", "redrive_headers", "redrive_of",
    "resolution", "resolution_headers", "retry_headers", "source_position",
]  # fmt: skip
