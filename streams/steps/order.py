"""Names the unit of order of an event: events of one unit are worked on one after the other.

The unit never reaches across partitions, whatever the route says: another worker may hold the next one.
"""

from collections.abc import Callable
from typing import Any

from jsonpointer import JsonPointer, JsonPointerException

from contracts.codec import Position, decode_any_json
from contracts.errors import Undecodable
from contracts.settings import RouteSettings

Unit = tuple[str, int] | tuple[str, int, Any]
Order = Callable[[Position, bytes | None, bytes], Unit | None]


def order_of(route: RouteSettings) -> Order:
    """Return what names the unit of an event (position, key, body); None stands for an event that is free of order."""
    if route.order == "none":
        return lambda _position, _key, _body: None
    if route.order == "partition":
        return lambda position, _key, _body: (position.topic, position.partition)
    if route.order == "key":
        return _by_key
    pointer = JsonPointer(route.order)
    return lambda position, key, body: _by_field(pointer, position, key, body)


def _by_key(position: Position, key: bytes | None, _body: bytes) -> Unit | None:
    return None if key is None else (position.topic, position.partition, key)


def _by_field(pointer: JsonPointer, position: Position, key: bytes | None, body: bytes) -> Unit | None:
    """Use the field's value, of whatever type but null; the record's key stands in for a field that is not there."""
    try:
        found = pointer.resolve(decode_any_json(body))
    except (Undecodable, JsonPointerException):
        found = None
    if found is None:
        return _by_key(position, key, body)
    # Text "1" and number 1 are different units, as they are different values.
    return position.topic, position.partition, (type(found).__name__, str(found))
