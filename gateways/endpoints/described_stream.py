"""What OpenAPI says about the streaming endpoints. Source: OpenAPI 3.1.1 (checked 2026-11)."""

from typing import Any

from gateways.endpoints.described import _RETRY_AFTER, POST_EVENT, _json, _parameter, _problem

_EVENTS: dict[str, Any] = {
    "description": (
        "Server-sent events; data is JSON. `accepted` (POST only): the event is durable. `delta`: the next piece of "
        "the answer. `restart`: a new attempt, what was read so far is void. `result`: the outcome, last. `error`: "
        "the outcome of an event without a result, last. Comments are signs of life."
    ),
    "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/StreamEvent"}}},
}
_TOO_MANY = _problem("Not accepted: too many watchers, or not durable. Try again.", _RETRY_AFTER)

POST_STREAM: dict[str, Any] = POST_EVENT | {
    "summary": "Accept an event and stream its answer.",
    "description": (
        "As POST /v1/events, in the lane interactive when none is asked for. The connection may break: the event goes "
        "on, and `stream_url` continues the stream."
    ),
    "tags": ["streams"],
    "responses": {code: answer for code, answer in POST_EVENT["responses"].items() if code != "202"}
    | {"200": _EVENTS, "503": _TOO_MANY},
}

GET_STREAM: dict[str, Any] = {
    "summary": "Watch an accepted event, from where one was.",
    "description": (
        "On any instance, also after restarts, by several at a time. An event that was not posted with "
        "`delivery: stream` has its result only."
    ),
    "tags": ["streams"],
    "parameters": [
        _parameter("id", "path", "Id of the event."),
        _parameter("ticket", "query", "The ticket from the stream URL; needs no API key.") | {"required": True},
        _parameter("Last-Event-ID", "header", "Id of the last event that was read: goes on behind it."),
        _parameter("last_event_id", "query", "The same as a parameter."),
    ],
    "responses": {
        "200": _EVENTS,
        "204": {"description": "There is nothing behind the last event id."},
        "400": _problem("The query or the last event id cannot be read."),
        "404": _problem("Unknown, or too old."),
        "429": _problem("Too many requests of this address are open.", _RETRY_AFTER),
        "503": _TOO_MANY,
    },
    "security": [{}],
}

DELETE_STREAM: dict[str, Any] = {
    "summary": "Ask for an event not to be answered any more.",
    "description": (
        "The call of the model is stopped, and the event ends as a dead letter with the reason `cancelled`; where it "
        "was too late, with its result. Closing a stream cancels nothing. Only for streamed events."
    ),
    "tags": ["streams"],
    "parameters": [
        _parameter("id", "path", "Id of the event."),
        _parameter("ticket", "query", "The ticket from the stream URL.") | {"required": True},
    ],
    "responses": {
        "200": _json("Too late: it has its outcome.", "Outcome"),
        "202": _json("The wish is on the log; the outcome says whether it came in time.", "Cancelling"),
        "400": _problem("The query cannot be read."),
        "401": _problem("The API key is missing or unknown: a ticket alone may watch, not cancel."),
        "403": _problem("The key may not claim the event's source."),
        "404": _problem("Unknown, or too old."),
        "429": _problem("The key is over a limit of its own.", _RETRY_AFTER),
        "503": _problem("Try again.", _RETRY_AFTER),
    },
    "security": [{"apiKey": []}],
}
