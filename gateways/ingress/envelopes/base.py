"""What an envelope is: a reader of messages that knows their event's attributes, unless the settings say otherwise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from contracts.errors import Undecodable
from gateways.ingress.base import HeaderLines, Message

_PREFIX = "com.amazonaws"
SNS_TYPE = f"{_PREFIX}.sns.notification"
SQS_TYPE = f"{_PREFIX}.sqs.message"
S3_TYPE = f"{_PREFIX}.s3"


class Item(NamedTuple):
    """One event of a message, with the attributes that the envelope suggests.

    Attributes:
        headers: what `header:` templates read.
        body: the event's data, what `json:` templates read.
        id: None when the envelope has none.
        key: empty when the event's id is the key.
        source: of the event; empty for the door's own.
        lane: empty for the door's own.
        content_type: empty when the envelope does not know.
        evidence: headers for the record beside the event's own.
    """

    headers: HeaderLines
    body: bytes
    id: str | None
    type: str
    key: str = ""
    subject: str = ""
    time: str = ""
    source: str = ""
    content_type: str = ""
    lane: str = ""
    evidence: tuple[tuple[str, bytes], ...] = ()


# Raises Undecodable; no item: the message says nothing and may go.
Envelope = Callable[[Message], list[Item]]


def parse(body: bytes, kind: Any, what: str) -> Any:
    """Read a JSON document.

    Raises:
        Undecodable: it is not one, or not of that kind.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = f"the message is not {what}: {error}"
        raise Undecodable(message) from error
