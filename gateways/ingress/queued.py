"""What the Lambda door queues and the SQS door reads: an accepted event as a JSON document, its payload byte for byte.

A payload that is JSON stands there as it came, so that other readers of the queue see it; any other one in base64.
"""

import base64
import binascii
import re

import msgspec

from contracts.errors import Undecodable

# What SQS takes in a message, Amazon SQS API reference, SendMessage (checked 2026-11).
_CARRIED = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
_NO_PAYLOAD = msgspec.Raw()


class QueuedEvent(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An event between two doors, version 1.

    Attributes:
        received_at: RFC 3339; becomes the event's time.
        payload: the body, when it is JSON.
        payload_base64: the body, when it is not.
        scheme, key_id: how it was verified.
    """

    type: str
    received_at: str
    id: str
    source: str
    # msgspec knows no optional Raw; an empty one is none, and is left out.
    payload: msgspec.Raw = _NO_PAYLOAD
    payload_base64: str | None = None
    key: str = ""
    subject: str = ""
    content_type: str = ""
    traceparent: str = ""
    scheme: str = ""
    key_id: str = ""
    lane: str = ""


def with_payload(queued: QueuedEvent, body: bytes) -> QueuedEvent:
    """Return the event with its payload."""
    if _is_json(body):
        return msgspec.structs.replace(queued, payload=msgspec.Raw(body))
    return msgspec.structs.replace(queued, payload_base64=base64.b64encode(body).decode())


def _is_json(body: bytes) -> bool:
    # White space around the value would be lost, and null would look like no payload.
    if body.strip(b" \t\r\n") != body or body in {b"", b"null"}:
        return False
    try:
        text = body.decode()
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return _CARRIED.fullmatch(text) is not None


def payload_of(queued: QueuedEvent) -> bytes:
    """Return the body.

    Raises:
        Undecodable: there is none, or it is not base64.
    """
    if bytes(queued.payload):
        return bytes(queued.payload)
    try:
        return base64.b64decode(queued.payload_base64 if queued.payload_base64 is not None else "?", validate=True)
    except (binascii.Error, ValueError) as error:
        message = "the queued event has no payload"
        raise Undecodable(message) from error
