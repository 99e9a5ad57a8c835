"""Generates the OpenAPI 3.1 document from the table of endpoints and the payload types."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from contracts.payloads import InferenceResult
from gateways.endpoints.described import EVERYWHERE
from gateways.endpoints.table import ENDPOINTS


def openapi() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS:
        operation = {"operationId": endpoint.name} | endpoint.operation
        operation |= {"responses": EVERYWHERE | operation["responses"]}
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Penstock gateway",
            "version": package_version(),
            "summary": "Signed webhooks and own events in, results of foundation models out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("events", "results", "streams", "operations")],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def package_version() -> str:
    """Return the installed version of this distribution; 0 when it runs uninstalled."""
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "0"


def _schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components([InferenceResult], ref_template="#/components/schemas/{name}")
    text: dict[str, Any] = {"type": "string"}
    problem = {"type": text, "title": text, "status": {"type": "integer"}, "reason": text}
    failed = {"reason": text, "message": text, "attempts": {"type": "integer"}, "completed_at": text}
    return (
        components
        | _stream_schemas()
        | _event_schemas()
        | {
            "Accepted": _object(
                {"id": text, "status": {"const": "accepted"}, "status_url": text}, source=text, stream_url=text
            ),
            "Pending": _object({"id": text, "source": text, "status": {"const": "pending"}}),
            "Outcome": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Succeeded"},
                    _object({"id": text, "source": text, "status": {"enum": ["dead_letter", "expired"]}} | failed),
                ]
            },
            "Cancelling": _object({"id": text, "source": text, "status": {"const": "cancelling"}}),
            "Succeeded": _object(
                {
                    "id": text,
                    "source": text,
                    "status": {"const": "succeeded"},
                    "result": {"$ref": "#/components/schemas/InferenceResult"},
                }
            ),
            "Problem": _object(problem, detail=text),
            "Ended": _object(
                problem
                | {"id": text, "source": text, "outcome": {"enum": ["dead_letter", "expired"]}}
                | {"attempts": {"type": "integer"}, "completed_at": text},
                detail=text,
            ),
            "Status": _object({"status": text}, reasons=_texts(), warnings=_texts()),
        }
    )


def _stream_schemas() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    return {
        # One event of the stream, its fields by name.
        "StreamEvent": _object(
            {
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": "#/components/schemas/StreamFrame"},
                }
            },
            event=text,
            id=text,
            retry={"type": "integer"},
        ),
        "StreamFrame": _object(
            {"type": {"enum": ["accepted", "delta", "restart", "result", "error"]}, "id": text},
            at={"type": "string", "description": "Id of the event: epoch.number, or end."},
            text={"type": "string", "description": "Of a delta."},
            ending={"enum": ["succeeded", "dead_letter", "expired", "retried"]},
            source=text,
            status=text,
            stream_url=text,
            status_url=text,
            result={"$ref": "#/components/schemas/InferenceResult"},
            reason=text,
            message=text,
            attempts={"type": "integer"},
            completed_at=text,
        ),
    }


def _event_schemas() -> dict[str, Any]:
    return {
        "CloudEvent": {
            **_object(
                {"specversion": {"const": "1.0"}, "id": _short(256), "source": _short(256), "type": _short(256)},
                datacontenttype=_short(1024),
                subject=_short(1024),
                time={"type": "string", "format": "date-time"},
                data={},
                data_base64={"type": "string", "contentEncoding": "base64"},
            ),
            "additionalProperties": {"type": ["string", "boolean", "integer"]},
            "propertyNames": {"pattern": "^([a-z0-9]{1,20}|data_base64)$"},
            "maxProperties": 41,
            "not": {"required": ["data", "data_base64"]},
        },
    }


def _texts() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}}


def _short(length: int) -> dict[str, Any]:
    """Return the schema of an attribute's text: not empty, printable, of so many characters at most."""
    return {"type": "string", "minLength": 1, "maxLength": length}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | optional, "required": list(required)}
