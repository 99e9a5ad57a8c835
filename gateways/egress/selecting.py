"""Turns records into items, and says which of them a door is configured to deliver."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

from contracts.codec import Position, RecordHeaders, delivery_note
from contracts.envelope import DELIVERY, EVENT_TYPE
from contracts.errors import Undecodable
from contracts.payloads import RESULT_TYPE, DeliveryNote
from contracts.settings import RouteSettings
from contracts.settings.egress import DoorSection
from gateways.egress.base import Item
from gateways.egress.outcomes import read_outcome


class Raw(NamedTuple):
    """A record as it was consumed."""

    position: Position
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders


class _Origin(msgspec.Struct, frozen=True):
    route: str = ""


class _Head(msgspec.Struct, frozen=True):
    """The one part of a result's value that is looked at."""

    provenance: _Origin = _Origin()


_head = msgspec.json.Decoder(_Head)


class Selector:
    """Picks a door's items.

    Args:
        door: name of its section.
        settings: its section.
        routes: the configured routes; markers do not say which one their event took.
        app_id: whose door it is: another application on the same topics may have one of the same name.
    """

    def __init__(self, door: str, settings: DoorSection, routes: Sequence[RouteSettings], app_id: str) -> None:
        self._door = door
        self._app_id = app_id
        self._match = settings.match
        self._since_ms = settings.since.timestamp() * 1000 if settings.since else 0.0
        self._routes = routes

    def from_results(self, raw: Raw) -> Item | None:
        """Return the item of a record on a result topic; None when it is not this door's, or no outcome."""
        if raw.position.timestamp_ms < self._since_ms:
            return None
        item = self._item(raw, raw.position, raw.headers, 1)
        return item if item is not None and self._takes(item) else None

    def from_waiting(self, raw: Raw) -> tuple[Item, DeliveryNote] | None:
        """Return the item of a record on a delay topic, with its next attempt; None when it is another door's."""
        try:
            note, headers = delivery_note(raw.headers)
        except Undecodable:
            return None
        if not self._is_own(note):
            return None
        origin = Position(note.topic, note.partition, note.offset, note.timestamp_ms)
        item = self._item(raw, origin, headers, note.attempts + 1)
        return None if item is None else (item, note)

    def is_ours(self, raw: Raw) -> bool:
        """Tell whether a record of a delay topic is this door's."""
        try:
            return self._is_own(delivery_note(raw.headers)[0])
        except Undecodable:
            return False

    def _is_own(self, note: DeliveryNote) -> bool:
        # What an older version let wait names no application: each delivers it, as it did then, rather than none.
        return note.door == self._door and note.app_id in {"", self._app_id}

    def _item(self, raw: Raw, origin: Position, headers: RecordHeaders, attempt: int) -> Item | None:
        outcome = read_outcome(headers, raw.value, origin.timestamp_ms)
        if outcome is None:
            return None
        found = dict(headers)
        event_type = (found.get(f"ce_{EVENT_TYPE}") or b"").decode(errors="replace")
        delivery = (found.get(f"ce_{DELIVERY}") or b"").decode(errors="replace")
        route = self._route(outcome.type, outcome.value, outcome.source, event_type)
        return Item(outcome, event_type, delivery, route, raw.key, headers, origin, attempt)

    def _route(self, outcome_type: str, value: bytes, source: str, event_type: str) -> str:
        if outcome_type == RESULT_TYPE:
            try:
                return _head.decode(value).provenance.route
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                # What is nested too deep for us may still be what its receiver wants. And what is no text must not end
                # the session: it would end the next one as well.
                return ""
        for route in self._routes:
            if _any(source, route.match.source) and _any(event_type, route.match.type):
                return route.name
        return ""

    def _takes(self, item: Item) -> bool:
        match = self._match
        pairs = (
            (item.outcome.source, match.source),
            (item.event_type, match.type),
            (item.delivery, match.delivery),
            (item.status, match.status),
            (item.route, match.route),
        )
        return all(_any(text, patterns) for text, patterns in pairs)


def _any(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
