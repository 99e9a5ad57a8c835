"""The messages on each kind of topic."""

from typing import Any

from contracts.payloads import DEAD_LETTER_MARKER_TYPE, DELTA_TYPE, DUPLICATE_TYPE, EXPIRED_TYPE, RESULT_TYPE
from contracts.settings import RouteSettings, Settings, SourceSettings
from contracts.topics import Topic, Topics
from gateways.asyncapi import schemas
from gateways.asyncapi.headers import headers_of

Messages = dict[str, dict[str, Any]]
_BYTES = "application/octet-stream"
_JSON = "application/json"
_BINDING = "0.5.0"
_ANSWERS = {"location": "$message.header#/ce_eventid", "description": "Id of the event; with ce_eventsource unique."}
_ITSELF = {"location": "$message.header#/ce_id", "description": "Id of the event; with ce_source unique."}


def messages_on(topic: Topic, settings: Settings) -> Messages:
    """Return the messages that lie on a topic; of a kind that is not described here, only that they are our own."""
    if topic.kind == "events":
        sources = {name: source for name, source in settings.sources.items() if source.lane == topic.lane}
        return _events(sources)
    if topic.kind == "results":
        common = Topics(settings.kafka.topic_prefix).results
        return _outcomes([route for route in settings.routes if (route.output_topic or common) == topic.name])
    if topic.kind in _COPIES:
        return {name: one for name, one in _outcomes(list(settings.routes)).items() if name != "duplicate-marker"}
    return _OTHERS.get(topic.kind, _OWN)


def _message(
    summary: str,
    head: dict[str, Any],
    payload: dict[str, Any],
    media: str,
    key: str,
    correlation: dict[str, str] | None = None,
) -> dict[str, Any]:
    found = {
        "summary": summary,
        "contentType": media,
        "headers": head,
        "payload": payload,
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": _BINDING}},
    }
    return found | ({"correlationId": correlation} if correlation else {})


_AS_RECEIVED = {"description": "The body, byte for byte as it was received; its media type is in content-type."}
_UNIT_OF_ORDER = "Partition key: the unit of order."
_KEY_OF_EVENT = "The event's partition key; the record lies in the partition number of its event."
_EVENT: Messages = {
    "event": _message("An event of an API caller.", headers_of("event"), _AS_RECEIVED, _BYTES, _UNIT_OF_ORDER, _ITSELF)
}


def _events(sources: dict[str, SourceSettings]) -> Messages:
    found = dict(_EVENT)
    for name, source in sources.items():
        fixed = {"source": source.ce_source or name}
        if "{" not in source.type:
            fixed["type"] = source.type
        summary = f"A signed webhook of {name}."
        found[f"webhook.{name}"] = _message(
            summary, headers_of("webhook", **fixed), _AS_RECEIVED, _BYTES, _UNIT_OF_ORDER, _ITSELF
        )
    return found


def _outcomes(routes: list[RouteSettings]) -> Messages:
    found = {}
    for route in routes:
        summary = f"The result of an event that took route {route.name}."
        head = headers_of("outcome", type=RESULT_TYPE)
        found[f"result.{route.name}"] = _message(
            summary, head, schemas.result_of(route), _JSON, _KEY_OF_EVENT, _ANSWERS
        )
    ends = {
        "dead-letter-marker": (
            "The event has no result: it is a dead letter.",
            DEAD_LETTER_MARKER_TYPE,
            "OutcomeMarker",
        ),
        "expired-marker": ("The event has no result: its deadline was over.", EXPIRED_TYPE, "OutcomeMarker"),
        "duplicate-marker": (
            "The event repeats another one, whose outcome is its own.",
            DUPLICATE_TYPE,
            "DuplicateMarker",
        ),
    }
    for name, (summary, kind, payload) in ends.items():
        head = headers_of("outcome", type=kind)
        found[name] = _message(summary, head, schemas.ref(payload), _JSON, _KEY_OF_EVENT, _ANSWERS)
    return found


_AS_ANSWERED = {"description": "The value of the outcome's own record; empty where the note says that it was left out."}
# Copies of outcomes for who waits.
_COPIES = frozenset({"replies"})
_OWN: Messages = {
    "record": {
        "summary": "Written and read by Penstock's own processes; its form is not part of this contract.",
        "contentType": _BYTES,
        "payload": {},
    }
}
_OTHERS: dict[str, Messages] = {
    "deliveries": {
        "waiting-delivery": _message(
            "An outcome that a door will try to deliver again.",
            headers_of("delivery"),
            _AS_ANSWERED,
            _JSON,
            _KEY_OF_EVENT,
            _ANSWERS,
        )
    },
    "undelivered": {
        "undelivered": _message(
            "An outcome that a door could not deliver, and why.",
            headers_of("delivery"),
            _AS_ANSWERED,
            _JSON,
            _KEY_OF_EVENT,
            _ANSWERS,
        )
    },
    "deltas": {
        "delta": _message(
            "One numbered piece of a streamed result.",
            headers_of("delta", type=DELTA_TYPE),
            schemas.ref("Delta"),
            _JSON,
            _KEY_OF_EVENT,
        )
    },
    "dead-letters": {
        "dead-letter": _message(
            "An event that ended badly: the original record, and one more header.",
            headers_of("dead-letter"),
            _AS_RECEIVED,
            _BYTES,
            _UNIT_OF_ORDER,
        ),
        "resolution": _message(
            "What an operator did with a dead letter; its value is empty.",
            headers_of("resolution"),
            {"type": "string", "maxLength": 0},
            _BYTES,
            "The letter's key.",
        ),
    },
    "retries": {
        "parked-event": _message(
            "An event whose next attempt is far away: the original record, its position and what was tried.",
            headers_of("retry"),
            _AS_RECEIVED,
            _BYTES,
            _KEY_OF_EVENT,
        )
    },
}
