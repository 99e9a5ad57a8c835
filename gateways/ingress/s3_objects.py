"""Reads which S3 object an event is about, whether it came as an S3 notification or through EventBridge.

Source: Amazon S3, "Event message structure" and "Event message structure" for EventBridge (checked 2026-11). Keys are
URL-encoded in notifications and plain in EventBridge's events.
"""

from typing import NamedTuple
from urllib.parse import unquote_plus

import msgspec

from contracts.errors import Undecodable


class S3Object(NamedTuple):
    """An object as an event names it.

    Attributes:
        key: decoded, as S3's API takes it.
        version_id: empty in a bucket without versions.
        etag: empty for a deletion.
        size: bytes; 0 for a deletion.
    """

    bucket: str
    key: str
    version_id: str = ""
    etag: str = ""
    size: int = 0


class _Bucket(msgspec.Struct):
    name: str


class _Object(msgspec.Struct, rename={"version_id": "versionId", "etag": "eTag"}):
    key: str
    version_id: str = ""
    etag: str = ""
    size: int = 0
    sequencer: str = ""


class _Entity(msgspec.Struct):
    bucket: _Bucket
    object: _Object


class Notice(msgspec.Struct, rename="camel"):
    """One record of an S3 event notification."""

    event_name: str
    s3: _Entity
    event_time: str = ""


class _BusObject(msgspec.Struct, rename="kebab"):
    key: str
    version_id: str = ""
    etag: str = ""
    size: int = 0


class _Detail(msgspec.Struct):
    bucket: _Bucket
    object: _BusObject


class _BusNotice(msgspec.Struct):
    detail: _Detail


def decode_key(key: str) -> str:
    """Return an object's key as it is; notifications encode it as HTML forms do."""
    return unquote_plus(key)


def object_of(data: bytes) -> S3Object:
    """Return the object that an event's data is about: a record of a notification, or EventBridge's event.

    Raises:
        Undecodable: neither.
    """
    try:
        found = msgspec.json.decode(data, type=Notice).s3
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return _of_bus_event(data)
    item = found.object
    return S3Object(found.bucket.name, decode_key(item.key), item.version_id, item.etag, item.size)


def _of_bus_event(data: bytes) -> S3Object:
    try:
        detail = msgspec.json.decode(data, type=_BusNotice).detail
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = "the event is about no S3 object"
        raise Undecodable(message) from error
    item = detail.object
    return S3Object(detail.bucket.name, item.key, item.version_id, item.etag, item.size)
