"""Makes events of a door's items: the settings' field templates first, then what the envelope suggests."""

from datetime import UTC, datetime

from contracts.codec import Record, decode_any_json, encode_event
from contracts.envelope import DELIVERY, PARTITION_KEY, TRACE_PARENT, Event, digest_id, format_time, parse_time
from contracts.errors import Undecodable
from contracts.repetition import MESSAGE_ID
from contracts.settings.ingress import IngressDoor
from contracts.topics import LANES, Topics
from gateways.ingress.base import Message
from gateways.ingress.envelopes.base import Item
from gateways.ingress.fields import Field, Request, compile_id, compile_optional
from gateways.ingress.text import bounded_key, is_clean, single_header
from gateways.ingress.tracing import is_trace_parent, new_trace_parent

DOOR_HEADER = "penstock-door"
RECEIVED_AT_HEADER = "penstock-received-at"


class Mapping:
    """One door's way from an item to a record.

    Raises:
        ConfigError: a template cannot be used; names the door.
    """

    def __init__(self, name: str, door: IngressDoor, topics: Topics) -> None:
        where = f"ingress.{name}"
        self._name = name
        self._topics = topics
        self._lane = door.lane
        self.source = door.ce_source or name
        self._type = compile_optional(door.type, f"{where}.type")
        self._id = compile_optional(door.id, f"{where}.id", compile_id)
        self._key = compile_optional(door.key, f"{where}.key")
        self._subject = compile_optional(door.subject, f"{where}.subject")

    @property
    def topic(self) -> str:
        """Return the topic of the door's own lane."""
        return self._topics.events(self._lane)

    def record(self, message: Message, item: Item, now: datetime | None = None) -> Record:
        """Return the record of an item.

        Raises:
            Undecodable: the field of the type or the id is missing or not usable.
        """
        request = Request(item.headers, item.body)
        event_id = self._event_id(request, item)
        received_at = format_time(now or datetime.now(UTC))
        event = Event(
            id=event_id,
            source=item.source or self.source,
            type=_required(self._type, request, item.type, "type"),
            data=item.body,
            time=item.time if parse_time(item.time) else received_at,
            subject=_clean(self._subject.expand(request) if self._subject else item.subject),
            datacontenttype=_content_type(request, item),
            extensions={
                PARTITION_KEY: self._partition_key(request, item, event_id),
                DELIVERY: "notify",
                TRACE_PARENT: _trace_parent(item),
            },
        )
        evidence = [*self.evidence(message, received_at), *item.evidence]
        lane = item.lane if item.lane in LANES else self._lane
        return Record(self._topics.events(lane), event.key, item.body, encode_event(event) + evidence)

    def evidence(self, message: Message, received_at: str) -> list[tuple[str, bytes]]:
        """Return the headers that say how an event came here."""
        return [
            (DOOR_HEADER, self._name.encode()),
            (MESSAGE_ID, message.id.encode()),
            (RECEIVED_AT_HEADER, received_at.encode()),
        ]

    def _event_id(self, request: Request, item: Item) -> str:
        text = _required(self._id, request, item.id or "", "id") if self._id else item.id
        if not text:
            return digest_id(item.source or self.source, item.body)
        # An S3 key alone may have a thousand bytes.
        return text if is_clean(text) else digest_id(item.source or self.source, text.encode("utf-8", "replace"))

    def _partition_key(self, request: Request, item: Item, event_id: str) -> str:
        text = self._key.expand(request) if self._key else item.key
        return bounded_key(text) if text else event_id


def _required(field: Field | None, request: Request, default: str, name: str) -> str:
    text = field.expand(request) if field else default
    if not text or not is_clean(text):
        template = f": {field.template}" if field else ""
        message = f"the event's {name} is missing or not usable{template}"
        raise Undecodable(message)
    return text


def _clean(text: str | None) -> str:
    return text if text and is_clean(text) else ""


def _content_type(request: Request, item: Item) -> str:
    text = item.content_type or single_header(request.headers, b"content-type") or ""
    if text:
        return text if is_clean(text) and text.isascii() else ""
    try:
        decode_any_json(item.body)
    except Undecodable:
        return "text/plain; charset=utf-8"
    return "application/json"


def _trace_parent(item: Item) -> str:
    # Who may write to the queue is known to AWS, so its trace is continued; a webhook's would not be.
    text = single_header(item.headers, TRACE_PARENT.encode()) or ""
    return text if is_trace_parent(text) else new_trace_parent()
