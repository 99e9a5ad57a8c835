"""An S3 event notification in a queue's message: one event per object, and none for s3:TestEvent.

Source: Amazon S3, "Event message structure"; CloudEvents adapter for S3 (both checked 2026-11). The adapter takes the
request's ids as the event's id; those differ between two notifications of one change, bucket, key, version and
sequencer do not.
"""

import msgspec

from contracts.errors import Undecodable
from gateways.ingress.base import Message
from gateways.ingress.envelopes import sns
from gateways.ingress.envelopes.base import S3_TYPE, Item, parse
from gateways.ingress.s3_objects import Notice, decode_key


class _Document(msgspec.Struct, rename={"records": "Records", "event": "Event"}):
    records: list[msgspec.Raw] | None = None
    event: str = ""


def unwrap(message: Message) -> list[Item]:
    """Return one item per record.

    Raises:
        Undecodable: not a notification, or a record without bucket or key.
    """
    message = sns.inner(message)
    found: _Document = parse(message.body, _Document, "an S3 event notification")
    if found.event == "s3:TestEvent":
        return []
    if not found.records:
        text = "the message is not an S3 event notification: it has no Records"
        raise Undecodable(text)
    return [_item(message, bytes(record)) for record in found.records]


def _item(message: Message, record: bytes) -> Item:
    notice: Notice = parse(record, Notice, "an S3 event notification")
    place = f"{notice.s3.bucket.name}/{decode_key(notice.s3.object.key)}"
    found = notice.s3.object
    return Item(
        message.headers,
        record,
        f"{place}@{found.version_id or found.etag}#{found.sequencer or notice.event_name}",
        f"{S3_TYPE}.{notice.event_name.removeprefix('s3:')}",
        key=message.group or place,
        subject=place,
        time=notice.event_time,
        content_type="application/json",
    )
