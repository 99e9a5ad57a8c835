"""Deltas and cancels to and from Kafka records: an answer while it is being made, and that it is not wanted any more.

A delta lies on the partition number of its event and bears the id of the event's terminal record (ce_id), so that a
reader picks out its own ones by a header, without parsing the others.
"""

from collections.abc import Iterable

from contracts.codec import Headers, Position, Record, decode_json, encode_json, position_headers
from contracts.envelope import OWNER, TRACE_PARENT, Event, result_id
from contracts.payloads import CANCEL_TYPE, DELTA_TYPE, Cancel, Delta

_ID = "ce_id"
_TYPE = "ce_type"
_OWNER = f"ce_{OWNER}"


def delta_headers(event: Event, app_id: str, position: Position) -> Headers:
    """Return the headers of an event's deltas; they are the same for all of them.

    Args:
        event: the event that is being answered.
        app_id: who makes them.
        position: of the event's record.
    """
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        (_ID, result_id(event.source, event.id).encode()),
        ("ce_source", b"penstock/" + app_id.encode()),
        (_TYPE, DELTA_TYPE.encode()),
        ("content-type", b"application/json"),
    ]
    for name in (OWNER, TRACE_PARENT):
        text = event.extensions.get(name)
        if text is not None:
            headers.append((f"ce_{name}", text.encode()))
    return headers + position_headers(app_id, position)


def delta_record(topic: str, key: bytes | None, headers: Headers, partition: int, delta: Delta) -> Record:
    """Return the record of a delta."""
    return Record(topic, key, encode_json(delta), headers, partition)


def delta_id(headers: Iterable[tuple[str, bytes | str | None]]) -> str:
    """Return the id of the terminal record that a record's event will have; empty when it is not a delta."""
    found = {name: raw for name, raw in headers if name in {_ID, _TYPE}}
    kind, named = found.get(_TYPE), found.get(_ID)
    if kind not in {DELTA_TYPE.encode(), DELTA_TYPE} or not named:
        return ""
    return named if isinstance(named, str) else named.decode("ascii", "replace")


def delta_owner(headers: Iterable[tuple[str, bytes | str | None]]) -> str:
    """Return the API key id of a delta's event; empty for a webhook's."""
    named = next((raw for name, raw in headers if name == _OWNER), None) or b""
    return named if isinstance(named, str) else named.decode("utf-8", "replace")


def read_delta(value: bytes | None) -> Delta:
    """Read a delta.

    Raises:
        Undecodable: it is not one.
    """
    return decode_json(value or b"", Delta)


def cancel_record(topic: str, cancel: Cancel) -> Record:
    """Return the record of a cancel; it lies on the partition number of its event."""
    name = f"{cancel.topic}/{cancel.partition}/{cancel.offset}".encode()
    headers: Headers = [
        ("ce_specversion", b"1.0"),
        (_ID, name),
        ("ce_source", b"penstock/gateway"),
        (_TYPE, CANCEL_TYPE.encode()),
        ("content-type", b"application/json"),
    ]
    return Record(topic, name, encode_json(cancel), headers, cancel.partition)


def read_cancel(value: bytes | None) -> Position:
    """Return the position of the event that a cancel is about.

    Raises:
        Undecodable: it is not one.
    """
    cancel = decode_json(value or b"", Cancel)
    return Position(cancel.topic, cancel.partition, cancel.offset, cancel.timestamp_ms)
