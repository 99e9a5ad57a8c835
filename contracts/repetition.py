"""By what a sender's repetition is recognised: the header with which a gateway makes an event record a candidate.

The header stands last on the record. Whatever a worker or an operator makes of a record has another header behind it (a
retry, a redrive, a hand-over, a dead letter), and records of other doors have none: nothing but what a gateway has just
accepted from a sender can ever be taken for a repetition. See docs/adr/0021.
"""

import hashlib
from binascii import unhexlify
from typing import Literal, NamedTuple

import msgspec

from contracts.codec import REDRIVE, Headers, Position, RecordHeaders, encode_json, redrive_of

DEDUP = "penstock-dedup"
# On an event's record: the queue's id of the message that it was made of, the same at every delivery of that; behind
# it `#1` and so on, if it is not the first event of it.
MESSAGE_ID = "penstock-message-id"
# On a terminal record: its event was done again because an operator set the offsets back, and when, Unix milliseconds.
REPLAY = "penstock-replay"
# On a terminal record: which of the events under one id it answers, as far as that was known when it was accepted.
ANSWERED = "penstock-answered"

# new: not seen by this gateway. conflict: its id was seen with another body. unknown: this gateway could not tell.
# redelivery: wanted again, never a candidate.
State = Literal["new", "conflict", "unknown", "redelivery"]
By = Literal["id", "digest"]

_FIELDS = 5
_MAX_TEXT_CHARS = 200
_BY: dict[bytes, By] = {b"id": "id", b"digest": "digest"}
# 128 bits, of BLAKE2b: as hard to forge as SHA-256, at half its cost per byte.
_HASH_BYTES = 16


class Identity(NamedTuple):
    """By what two deliveries are known as one event.

    Attributes:
        by: id: the same name and the same bytes. digest: the same bytes, whatever the id is, because nothing vouches
            for the id.
        name: hash of owner, source and id.
        digest: hash of owner, source and the signed bytes.
        window_s: how long after the first one a repetition is one.
        key: what is equal for two deliveries of one event, and for no others.
        event_id: where the id does not follow from the identity (by digest); else empty.
    """

    by: By
    name: bytes
    digest: bytes
    window_s: int
    key: bytes
    event_id: str = ""


def identify(owner: str, source: str, event_id: str, body: bytes, by: By, window_s: float) -> Identity:
    """Return the identity of an event.

    Args:
        owner: API key id; empty for webhooks.
        source: CloudEvents source.
        event_id: of the event.
        body: as the sender signed it.
        by: see Identity.
        window_s: see Identity.
    """
    # An owner is a configured name, and no attribute has control characters in it: the parts cannot run together.
    scope = f"{owner}\n{source}\n".encode()
    name = hashlib.blake2b(scope + event_id.encode(), digest_size=_HASH_BYTES).digest()
    hashed = hashlib.blake2b(scope, digest_size=_HASH_BYTES)
    hashed.update(body)
    return _identity(by, name, hashed.digest(), int(window_s), event_id)


def digest_of(owner: str, source: str, body: bytes) -> bytes:
    """Return the hash of an event's body, as `identify` has it."""
    return hashlib.blake2b(f"{owner}\n{source}\n".encode() + body, digest_size=_HASH_BYTES).digest()


def _identity(by: By, name: bytes, digest: bytes, window_s: int, event_id: str) -> Identity:
    if by == "digest":
        return Identity(by, name, digest, window_s, digest, event_id)
    return Identity(by, name, digest, window_s, name + digest)


def dedup_header(identity: Identity, state: State) -> tuple[str, bytes]:
    """Return the header; it has to be the record's last one."""
    text = f"{state} {identity.by} {identity.name.hex()} {identity.digest.hex()} {identity.window_s}"
    return DEDUP, text.encode()


def identity_of(headers: RecordHeaders, event_id: str) -> Identity | None:
    """Return the identity of a candidate; None for a record that is none, and for what is not readable."""
    if not headers or headers[-1][0] != DEDUP:
        return None
    fields = (headers[-1][1] or b"").split(b" ")
    if len(fields) != _FIELDS or fields[0] == b"redelivery":
        return None
    by = _BY.get(fields[1])
    try:
        name, digest, window_s = unhexlify(fields[2]), unhexlify(fields[3]), int(fields[4])
    except ValueError:
        return None
    if by is None or len(name) != _HASH_BYTES or len(digest) != _HASH_BYTES:
        return None
    return _identity(by, name, digest, window_s, event_id)


def outcome_marks(headers: RecordHeaders, origin: Position, replayed_s: float) -> Headers:
    """Return what tells the outcome of an event from outcomes of others under its id, and of its own earlier ones.

    Two records of one event have the same (a gateway that is killed before it has its source's copy deleted, a mirror),
    unless the second one was wanted: a redelivery is known by where it lies. So is an event of which nobody has noted
    what it repeats (`idempotency.by: none`, another program), but one of a queue by its message: each record is done.

    Args:
        headers: of the event's record, or of what was made of it.
        origin: where the event's record lies.
        replayed_s: when it was taken to be done again, Unix seconds; 0 = it is no replay.
    """
    marks: Headers = []
    raw = next((raw or b"" for name, raw in reversed(headers) if name == DEDUP), b"")
    known = fields[3] if len(fields := raw[:_MAX_TEXT_CHARS].split(b" ")) == _FIELDS else b""
    if not known or fields[0] == b"redelivery":
        place = f"{origin.topic}/{origin.partition}/{origin.offset}".encode()
        known = known + b" " + place if known else _message_of(headers) or place
    marks.append((ANSWERED, known))
    if replayed_s:
        marks.append((REPLAY, b"%d" % (replayed_s * 1000)))
    # Tells a consumer that this outcome follows an earlier one, of the same id, that was a dead letter.
    if redrive := redrive_of(headers):
        at, by = redrive.at[:_MAX_TEXT_CHARS], redrive.by[:_MAX_TEXT_CHARS]
        marks.append((REDRIVE, encode_json(msgspec.structs.replace(redrive, at=at, by=by))))
    return marks


def _message_of(headers: RecordHeaders) -> bytes:
    ids = (raw for name, raw in headers if name == MESSAGE_ID)
    return next((b"message " + raw for raw in ids if raw and len(raw) <= _MAX_TEXT_CHARS), b"")
