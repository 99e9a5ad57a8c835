"""What OpenAPI says about each endpoint. Source: OpenAPI 3.1.1 (checked 2026-11)."""

from typing import Any

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_LOCATION = {"Location": {"description": "Where to ask for the result.", "schema": {"type": "string"}}}

_APPLIED = {"Preference-Applied": {"description": "What of Prefer was honoured.", "schema": {"type": "string"}}}
_PLACE = {"Content-Location": {"description": "Where to read it again.", "schema": {"type": "string"}}}


def _json(description: str, schema: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})


def _problem(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})


def _ended(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Ended"}}}
    return {"description": description, "content": content, "headers": _PLACE | _APPLIED}


def _parameter(name: str, where: str, description: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string"} | schema,
    }


_LANE: dict[str, Any] = {"enum": ["interactive", "standard", "bulk"]}
# An empty body is a body too.
_ANY_BODY = {"required": False, "content": {"*/*": {"schema": {}}}}
_REFUSALS = {
    "400": _problem("Malformed or ambiguous."),
    "408": _problem("The body did not arrive in time."),
    "413": _problem("The body is too large."),
    "415": _problem("The content type or encoding is not accepted."),
    "503": _problem("Not durable; nothing is lost if you send it again.", _RETRY_AFTER),
}
_RESULT_LINK = {
    "result": {
        "operationId": "get_result",
        "parameters": {"path.id": "$response.body#/id", "query.source": "$response.body#/source"},
        "description": "With the same API key; whoever has none uses the ticket in status_url.",
    }
}
# What may come before an endpoint is even looked at, and behind it.
EVERYWHERE = {
    "400": _problem("Malformed or ambiguous."),
    "414": _problem("The URL is too long."),
    "431": _problem("The headers are too large."),
    "503": _problem("A fault of ours; try again.", _RETRY_AFTER),
}
_NOT_NOW = {"503": _problem("Ask again.", _RETRY_AFTER)}

_OWN_BODY = "As 202, for sources that are configured so, where the body may be another; or the answer to a handshake."
_OWN = {
    "application/json": {
        "schema": {
            "anyOf": [
                {"$ref": "#/components/schemas/Accepted"},
                {"type": "object", "required": ["plainToken", "encryptedToken"]},
            ]
        }
    },
    "*/*": {"schema": {}},
}
SOURCE = _parameter("source", "path", "Name of the source in the configuration.")

POST_WEBHOOK: dict[str, Any] = {
    "summary": "Accept a signed webhook of a configured source.",
    "description": "The signature headers are those of the source's scheme. The answer comes after the broker's ack.",
    "tags": ["events"],
    "parameters": [
        SOURCE,
        _parameter("validationToken", "query", "Of Microsoft Graph: comes back as text, where enabled."),
    ],
    "requestBody": _ANY_BODY,
    "responses": {
        "200": {"description": _OWN_BODY, "content": _OWN, "headers": _LOCATION},
        "201": {"description": _OWN_BODY, "content": _OWN, "headers": _LOCATION},
        "202": {"description": "Durable on the log.", "content": _OWN, "headers": _LOCATION},
        "204": {"description": "As 202, for sources that are configured so.", "headers": _LOCATION},
        "401": _problem("The signature is missing or wrong."),
        "403": _problem("The source does not take requests from this address."),
        "404": _problem("No such source."),
        "429": _problem("The sender is over a limit of its own.", _RETRY_AFTER),
        **_REFUSALS,
    },
    "security": [],
}

POST_EVENT: dict[str, Any] = {
    "summary": "Accept an event of an own system.",
    "description": (
        "A CloudEvent 1.0, structured (application/cloudevents+json) or binary (ce-* headers); or any body with the "
        "header ce-type, where ce-source defaults to the key's id and ce-id to Idempotency-Key or a new UUID."
    ),
    "tags": ["events"],
    "parameters": [
        _parameter("Penstock-Lane", "header", "Lane of the event.", **_LANE),
        _parameter("lane", "query", "The same as a parameter.", **_LANE),
        _parameter("Idempotency-Key", "header", "Id of the event, in place of ce-id.", maxLength=256),
        # No limits in the schemas: beside a structured event nobody reads these.
        _parameter(
            "ce-specversion", "header", "1.0 for CloudEvents binary mode; these headers are not read otherwise."
        ),
        _parameter("ce-type", "header", "Type of the event, at most 256 characters; required unless structured."),
        _parameter("ce-source", "header", "Source of the event, at most 256 characters."),
        _parameter("ce-id", "header", "Id of the event, at most 256 characters."),
        _parameter("ce-time", "header", "When it happened, RFC 3339."),
        _parameter("ce-subject", "header", "Subject of the event, at most 1024 characters."),
        _parameter(
            "ce-partitionkey", "header", "Unit of order, at most 256 characters; the id, so no order, when absent."
        ),
        _parameter("ce-expirytime", "header", "Deadline, RFC 3339: not paid for after this instant."),
        _parameter("ce-callbackurl", "header", "Where the result is posted to, for keys that may."),
        _parameter("traceparent", "header", "W3C trace to continue."),
    ],
    "requestBody": {
        "required": False,
        "content": {
            "application/cloudevents+json": {"schema": {"$ref": "#/components/schemas/CloudEvent"}},
            "application/json": {"schema": {}},
            "*/*": {"schema": {}},
        },
    },
    "responses": {
        "202": _json("Durable on the log.", "Accepted", _LOCATION) | {"links": _RESULT_LINK},
        "401": _problem("The API key is missing or unknown."),
        "403": _problem("The key may not claim this source or use this lane."),
        "429": _problem("The key is over a limit of its own.", _RETRY_AFTER),
        **_REFUSALS,
    },
    "security": [{"apiKey": []}],
}

_PREFER = _parameter(
    "Prefer", "header", "RFC 7240: wait=N waits N seconds at most, respond-async not at all.", examples=["wait=10"]
)
POST_INVOKE: dict[str, Any] = {
    "summary": "Accept an event of an own system, and wait for its result.",
    "description": (
        "The request is that of POST /v1/events; the lane is interactive where the key may use it. When the budget "
        "runs out, or will, the answer is 202 and the work goes on. An id that was used before gets the outcome of "
        "that event, and is 422 with reason `id_reused` where that had another body. A 504 is a final outcome: the "
        "event's own deadline passed, nothing is running."
    ),
    "tags": ["events"],
    "parameters": [*POST_EVENT["parameters"], _PREFER],
    "requestBody": POST_EVENT["requestBody"],
    "responses": {
        **POST_EVENT["responses"],
        "200": _json("The result.", "Succeeded", _PLACE | _APPLIED),
        "202": _json("Durable on the log, no outcome yet.", "Accepted", _LOCATION | _RETRY_AFTER | _APPLIED)
        | {"links": _RESULT_LINK},
        "422": _ended(
            "The event ended as a dead letter, and is at fault itself; or its id was used with another body."
        ),
        "502": _ended("The event ended as a dead letter: the model failed, or its answer is not what the route wants."),
        "503": _problem("Not accepted, or too many wait; nothing is lost if you send it again.", _RETRY_AFTER),
        "504": _ended("The event expired: its own deadline passed before it had a result."),
    },
    "security": POST_EVENT["security"],
}

GET_RESULT: dict[str, Any] = {
    "summary": "Ask what became of an event.",
    "tags": ["results"],
    "parameters": [
        _parameter("id", "path", "Id of the event."),
        _parameter("ticket", "query", "The ticket from the status URL; needs no API key."),
        _PREFER,
        _parameter("source", "query", "Source of the event, when the key uses one id in several."),
    ],
    "responses": {
        "200": _json("It has its outcome.", "Outcome", _APPLIED),
        "202": _json("Not yet; ask again.", "Pending", _RETRY_AFTER | _APPLIED),
        "400": _problem("The query cannot be read."),
        "401": _problem("Neither a ticket nor an API key."),
        "404": _problem("Unknown, or not yours."),
        "429": _problem("The key is over a limit of its own.", _RETRY_AFTER),
        **_NOT_NOW,
    },
    "security": [{"apiKey": []}, {}],
}

GET_HEALTH: dict[str, Any] = {
    "summary": "Liveness: 503 when only a restart helps.",
    "tags": ["operations"],
    "responses": {"200": _json("Alive.", "Status"), "503": _json("Restart it.", "Status")},
    "security": [],
}

GET_READINESS: dict[str, Any] = {
    "summary": "Readiness: 503 when traffic should go elsewhere.",
    "tags": ["operations"],
    "responses": {"200": _json("Ready.", "Status"), "503": _json("Not ready, with reasons.", "Status")},
    "security": [],
}

GET_METRICS: dict[str, Any] = {
    "summary": "Metrics in the Prometheus text format.",
    "tags": ["operations"],
    "responses": {"200": {"description": "Every metric.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    "security": [],
}

GET_OPENAPI: dict[str, Any] = {
    "summary": "This document.",
    "tags": ["operations"],
    "responses": {
        "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
    },
    "security": [],
}

GET_INDEX: dict[str, Any] = {
    "summary": "Where to go.",
    "tags": ["operations"],
    "responses": {"200": {"description": "Paths.", "content": {"application/json": {"schema": {"type": "object"}}}}},
    "security": [],
}
