"""The schemas of the document: our payloads, and what the routes of a configuration promise."""

from typing import Any

import msgspec

from contracts.codec import decode_any_json
from contracts.errors import ConfigError, Undecodable
from contracts.payloads import (
    DeadLetter,
    DeliveryNote,
    Delta,
    DuplicateMarker,
    InferenceResult,
    OutcomeMarker,
    Redrive,
    Resolution,
    RetryNote,
)
from contracts.settings import RouteSettings, Settings
from gateways.asyncapi.headers import SCHEMAS

Schema = dict[str, Any]
_PAYLOADS = (
    InferenceResult, OutcomeMarker, DuplicateMarker, Delta, DeadLetter, Resolution, RetryNote, Redrive, DeliveryNote,
)  # fmt: skip
_PREFIX = "#/components/schemas/"
# Names of the dialect and of the schema as a document of its own; embedded, they would move the base of references.
_OF_ITS_OWN = ("$schema", "$id")


def schemas(settings: Settings) -> Schema:
    """Return `components.schemas`.

    Raises:
        ConfigError: a route's schema file cannot be read.
    """
    _, ours = msgspec.json.schema_components(_PAYLOADS, ref_template=_PREFIX + "{name}")
    outputs = {output_name(route): _output(route, settings) for route in settings.routes}
    return ours | SCHEMAS | outputs


def output_name(route: RouteSettings) -> str:
    """Return the name of a route's output among the schemas; no payload has a dot in its name."""
    return f"output.{route.name}"


def result_of(route: RouteSettings) -> Schema:
    """Return the payload of a route's results."""
    output = {"$ref": _PREFIX + output_name(route)}
    return {"allOf": [ref("InferenceResult"), {"type": "object", "properties": {"output": output}}]}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": _PREFIX + name}


def _output(route: RouteSettings, settings: Settings) -> Schema | bool:
    if route.output_schema is not None:
        found: Any = route.output_schema
    elif route.output_schema_file is not None:
        try:
            found = decode_any_json(route.output_schema_file.read_bytes())
        except (OSError, Undecodable) as error:
            message = f"route {route.name}: {route.output_schema_file}: {error}"
            raise ConfigError(message) from error
    elif settings.models[route.model].task == "embedding":
        return {"type": "array", "items": {"type": "number"}, "minItems": 1}
    else:
        return {"type": "string"}
    if isinstance(found, bool):
        # Any JSON, or none.
        return found
    if not isinstance(found, dict):
        message = f"route {route.name}: {route.output_schema_file}: not a JSON Schema"
        raise ConfigError(message)
    kept = {key: value for key, value in found.items() if key not in _OF_ITS_OWN}
    try:
        moved: Schema = _moved(kept, _PREFIX + output_name(route))
    except RecursionError as error:
        message = f"route {route.name}: its output schema is nested too deeply"
        raise ConfigError(message) from error
    return moved


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references to its own root point to where it stands now."""
    if isinstance(schema, list):
        return [_moved(item, place) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:] if _is_local_reference(key, value) else _moved(value, place)
        for key, value in schema.items()
    }


def _is_local_reference(key: str, value: Any) -> bool:
    return key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/"))
