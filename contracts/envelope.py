"""The event: our in-memory form of a CloudEvent 1.0.

Source: CloudEvents 1.0.2, https://github.com/cloudevents/spec (checked 2026-11); extensions `partitionkey`,
`expirytime` and `traceparent` are its documented ones.
"""

import functools
import hashlib
import re
import uuid
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

Delivery = Literal["sync", "notify", "stream", "batch"]

# Extension attributes, lower-case alphanumeric as the specification demands.
PARTITION_KEY = "partitionkey"
EXPIRY_TIME = "expirytime"
TRACE_PARENT = "traceparent"
DELIVERY = "delivery"
OWNER = "owner"
CONNECTION_ID = "connectionid"
CALLBACK_URL = "callbackurl"
EVENT_ID = "eventid"
EVENT_SOURCE = "eventsource"
EVENT_TYPE = "eventtype"
REPLY_TO = "replyto"

_REPLY_ADDRESS = re.compile(r"([0-9]{1,6})\.([0-9a-f]{32})")
ATTRIBUTE_NAME = re.compile(r"^[a-z0-9]{1,20}$")
_RESULT_NAMESPACE = hashlib.sha1(uuid.UUID("6b1f3e0c-6a0f-5d3e-9c39-4d9d1d3a7f10").bytes, usedforsecurity=False)
# The variant of RFC 9562: the digit's two upper bits are 10.
_VARIANT = {f"{digit:x}": "89ab"[digit & 3] for digit in range(16)}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted event.

    Attributes:
        id: unique within its source.
        source: CloudEvents source, for webhooks the configured name.
        time: RFC 3339 text, as received or as stamped by the gateway.
        data: the request body, byte for byte; empty is not null.
        extensions: CloudEvents extension attributes by lower-case name.
    """

    id: str
    source: str
    type: str
    data: bytes
    time: str = ""
    subject: str = ""
    datacontenttype: str = ""
    dataschema: str = ""
    extensions: dict[str, str] = {}

    @property
    def expires_at(self) -> datetime | None:
        """Return the event's own deadline, aware UTC; None when it has none or an unreadable one."""
        text = self.extensions.get(EXPIRY_TIME)
        return None if text is None else parse_time(text)

    @property
    def key(self) -> bytes | None:
        """Return the partition key's bytes; None when the event has none."""
        text = self.extensions.get(PARTITION_KEY)
        return None if text is None else text.encode()

    @property
    def owner(self) -> str:
        """Return whose event this is (API key id); empty for webhooks."""
        return self.extensions.get(OWNER, "")


class ReplyAddress(NamedTuple):
    """Where a worker copies an outcome for the gateway process that waits for it; what `replyto` carries.

    Any number of processes may share a partition: a reader takes what carries its own address. Which request an outcome
    answers is said by the outcome's id, which follows from the event before it is produced (`result_id`).

    Attributes:
        partition: of the replies topic.
        instance: 32 hexadecimal digits, random per process.
    """

    partition: int
    instance: str

    def __str__(self) -> str:
        """Return it as the attribute's text."""
        return f"{self.partition}.{self.instance}"


def reply_address(text: str) -> ReplyAddress | None:
    """Read an address; None when it is none."""
    found = _REPLY_ADDRESS.fullmatch(text)
    return None if found is None else ReplyAddress(int(found[1]), found[2])


def parse_time(text: str) -> datetime | None:
    """Read an RFC 3339 instant; None when it is not one or has no offset."""
    try:
        instant = datetime.fromisoformat(text)
        return None if instant.tzinfo is None else instant.astimezone(UTC)
    except (ValueError, OverflowError):
        # Overflow: 0001-01-01T00:00:00+14:00 is in the year 0 in UTC.
        return None


def format_time(instant: datetime) -> str:
    """Write an aware instant as RFC 3339 in UTC with milliseconds."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return utc.isoformat(timespec="milliseconds")[:-6] + "Z"


def format_unix_ms(unix_ms: int) -> str:
    """Write Unix milliseconds as `format_time` writes an instant, at a fraction of its price."""
    second, ms = divmod(unix_ms, 1000)
    return f"{_format_second(second)}.{ms:03d}Z"


@functools.lru_cache(maxsize=16)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, tz=UTC).isoformat()[:-6]


def result_id(source: str, event_id: str) -> str:
    """Return the id of an event's terminal record: derived, so that any consumer recognises a duplicate."""
    # uuid.uuid5 written out (RFC 9562, 5.5), which costs a quarter: this runs once per event.
    digest = _RESULT_NAMESPACE.copy()
    digest.update(f"{source}\n{event_id}".encode())
    text = digest.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def digest_id(source: str, body: bytes) -> str:
    """Return an id for an event that brought none: the same body from the same source gets the same id."""
    return "sha256-" + hashlib.sha256(source.encode() + b"\n" + body).hexdigest()[:40]
