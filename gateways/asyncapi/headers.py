"""What a record's headers mean, by name. A test holds this against what the codec writes.

Source: CloudEvents Kafka Protocol Binding 1.0.2; W3C Trace Context (checked 2026-11).
"""

from typing import Any

from contracts import codec
from contracts.envelope import (
    CONNECTION_ID,
    DELIVERY,
    EVENT_ID,
    EVENT_SOURCE,
    EVENT_TYPE,
    EXPIRY_TIME,
    OWNER,
    TRACE_PARENT,
)
from contracts.repetition import ANSWERED, DEDUP, REPLAY

Schema = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description} | more


def _note(description: str, struct: str) -> Schema:
    # A header is bytes: the struct stands in it as JSON.
    schema = {"$ref": f"#/components/schemas/{struct}"}
    return _text(description, contentMediaType="application/json", contentSchema=schema)


_CLOUD_EVENT: Schema = {
    "ce_specversion": _text("CloudEvents binary mode.", const="1.0"),
    "ce_id": _text("Unique within its source."),
    "ce_source": _text("Who sent the event."),
    "ce_type": _text("What happened."),
    "ce_time": _text("When it was accepted or happened, RFC 3339.", format="date-time"),
    "ce_subject": _text("What it is about."),
    "content-type": _text("Media type of the value."),
    f"ce_{TRACE_PARENT}": _text("W3C trace context, as the CloudEvents extension has it."),
    TRACE_PARENT: _text("The same, where tracing libraries look for it."),
    f"ce_{OWNER}": _text("Id of the API key whose event this is; absent for webhooks."),
    f"ce_{DELIVERY}": _text("How the result is waited for."),
    f"ce_{CONNECTION_ID}": _text("WebSocket connection of Amazon API Gateway that waits for it."),
    "ce_replyto": _text("Gateway process that waits for it."),
}
_EVENT: Schema = _CLOUD_EVENT | {
    "ce_dataschema": _text("URI of the value's schema, when the sender names one."),
    f"ce_{EXPIRY_TIME}": _text("The event's own deadline, RFC 3339; not paid for after it.", format="date-time"),
    codec.REDRIVE: _note("It was made from a dead letter.", "Redrive"),
    DEDUP: _text("What the gateway knew of it, and by what a repetition is recognised; the last header."),
}
_EVIDENCE: Schema = {
    "penstock-scheme": _text("How the webhook was signed."),
    "penstock-key-id": _text("Which of the source's secrets verified it."),
    "penstock-received-at": _text("When the gateway received it, RFC 3339.", format="date-time"),
}
_POSITION: Schema = {
    codec.SOURCE_APP: _text("`worker.app_id` of who wrote this record."),
    codec.SOURCE_TOPIC: _text("Topic of the event's record."),
    codec.SOURCE_PARTITION: _text("Its partition, decimal."),
    codec.SOURCE_OFFSET: _text("Its offset, decimal."),
    codec.SOURCE_TIMESTAMP: _text("Its timestamp, milliseconds since 1970, decimal."),
}
_OUTCOME: Schema = (
    _CLOUD_EVENT
    | {
        "ce_id": _text("Derived from the event's source and id: a duplicate has the same.", format="uuid"),
        "ce_source": _text("`penstock/` and the `worker.app_id`."),
        f"ce_{EVENT_ID}": _text("Id of the event that this answers."),
        f"ce_{EVENT_SOURCE}": _text("Its source."),
        f"ce_{EVENT_TYPE}": _text("Its type."),
        codec.REDRIVE: _note("The event was made from a dead letter.", "Redrive"),
        ANSWERED: _text(
            "Digest of the event's body, and where it lies if sent again on purpose; if nobody noted what it repeats, "
            "the id of its queue's message, or where it lies."
        ),
        REPLAY: _text("When it was taken to be done again after a reset of offsets, milliseconds since 1970, decimal."),
    }
    | _POSITION
)
_DELTA: Schema = _CLOUD_EVENT | {
    "ce_id": _text("Id that the event's terminal record will have: the same for all its deltas.", format="uuid"),
}
_ALWAYS = ("ce_specversion", "ce_id", "ce_source", "ce_type")


def _headers(known: Schema, always: tuple[str, ...]) -> Schema:
    return {"type": "object", "properties": known, "required": list(always)}


_OUTCOME_ALWAYS = (*_ALWAYS, "ce_time", "content-type", f"ce_{EVENT_ID}", f"ce_{EVENT_SOURCE}", f"ce_{EVENT_TYPE}")
_WHY = _note("Why it ended here; ours is the last header of this name.", "DeadLetter")
_WHAT = _note("What became of which letter.", "Resolution")
_BOUND_FOR = _note("Which door, what became of its attempts, and where the outcome's own record lies.", "DeliveryNote")
_TRIED = _note("What the next attempt needs to know.", "RetryNote")

# By the kind of record; a dead letter and a parked event have those of their original as well.
SCHEMAS: dict[str, Schema] = {
    "headers.event": _headers(_EVENT, _ALWAYS),
    "headers.webhook": _headers(_EVENT | _EVIDENCE, (*_ALWAYS, *_EVIDENCE)),
    "headers.outcome": _headers(_OUTCOME, (*_OUTCOME_ALWAYS, *_POSITION)),
    "headers.delta": _headers(_DELTA | _POSITION, (*_ALWAYS, "content-type", *_POSITION)),
    "headers.dead-letter": _headers(_EVENT | _EVIDENCE | {codec.DEAD_LETTER: _WHY}, (codec.DEAD_LETTER,)),
    "headers.resolution": _headers({codec.RESOLUTION: _WHAT}, (codec.RESOLUTION,)),
    "headers.delivery": _headers(_OUTCOME | {codec.DELIVERY_NOTE: _BOUND_FOR}, (codec.DELIVERY_NOTE,)),
    "headers.retry": _headers(_EVENT | _EVIDENCE | _POSITION | {codec.RETRY: _TRIED}, (*_POSITION, codec.RETRY)),
}


def headers_of(kind: str, **fixed: str) -> Schema:
    """Return the headers of a kind of record; `fixed` names CloudEvents attributes that have one value there."""
    shared = {"$ref": f"#/components/schemas/headers.{kind}"}
    if not fixed:
        return shared
    consts = {f"ce_{name}": {"const": value} for name, value in fixed.items()}
    return {"type": "object", "allOf": [shared], "properties": consts}
