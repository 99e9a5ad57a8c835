"""The reference page of the settings, from the JSON Schema of the configuration."""

import json
from typing import Any

from contracts.settings import Settings
from gateways.cli.reference_tables import code, table

Schema = dict[str, Any]
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "pattern": "matches `{}`",
}
_PLAIN = {"object": "mapping"}
_HEAD = ("key", "type", "default", "meaning")


def page() -> str:
    """Return the page."""
    schema = Settings.model_json_schema()
    sections = [_section(schema, "", schema)]
    for name, definition in schema["properties"].items():
        sections += _below(schema, name, definition, seen=())
    return (
        "# Settings\n\n"
        "Everything that `penstock.yaml` may contain. `penstock config check` finds mistakes with file and line,\n"
        "`penstock config show` prints what is in effect, [penstock.schema.json](penstock.schema.json) is for\n"
        "editors.\n\n"
        "A value can be overridden from the environment: `PENSTOCK_KAFKA__BOOTSTRAP_SERVERS` is "
        "`kafka.bootstrap_servers`,\n`PENSTOCK_ROUTES__0__DEADLINE_S` the first route's `deadline_s`. "
        "Secrets are references only: `env:NAME` or `file:PATH`.\n" + "\n".join(sections)
    )


def _below(root: Schema, path: str, schema: Schema, seen: tuple[str, ...]) -> list[str]:
    """Return the sections that a property leads to, itself first."""
    found = []
    for reference, step in _references(schema):
        name = reference.rpartition("/")[2]
        definition = root["$defs"][name]
        if "properties" not in definition or name in seen:
            continue
        where = path + step + _alternative(schema, definition)
        found.append(_section(definition, where, root))
        for key, inner in definition["properties"].items():
            found += _below(root, f"{path}{step}.{key}", inner, (*seen, name))
    return found


def _references(schema: Schema) -> list[tuple[str, str]]:
    """Return (reference, what the path gains) of the sections directly below a property."""
    found = []
    if "$ref" in schema:
        found.append((schema["$ref"], ""))
    for option in schema.get("anyOf", []) + schema.get("oneOf", []):
        found += _references(option)
    if isinstance(schema.get("items"), dict):
        found += [(reference, "[]" + step) for reference, step in _references(schema["items"])]
    inner = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    for values in inner:
        if isinstance(values, dict):
            found += [(reference, ".<name>" + step) for reference, step in _references(values)]
    return found


def _alternative(schema: Schema, definition: Schema) -> str:
    """Tell sections apart that stand in one place: by their `kind`."""
    kind = definition["properties"].get("kind", {}).get("const")
    return f" (kind: {kind})" if kind and "oneOf" in json.dumps(schema) else ""


def _section(definition: Schema, where: str, root: Schema) -> str:
    required = set(definition.get("required", []))
    rows = [
        (code(key), _type(schema), _default(schema, required=key in required), _meaning(schema, root))
        for key, schema in definition["properties"].items()
    ]
    title = f"\n## {where}\n\n" if where else "\n## Sections\n\n"
    text = definition.get("description", "")
    return title + (f"{text}\n\n" if text else "") + table(_HEAD, rows)


def _type(schema: Schema) -> str:
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if "$ref" in schema:
        return "section"
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type(option) for option in options if option.get("type") != "null"))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return _PLAIN.get(schema.get("type", ""), str(schema.get("type", "any")))


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "**required**"
    default = schema.get("default")
    if default is None:
        return ""
    # A section's default is the defaults of its keys, which stand in its own table.
    return "" if isinstance(default, dict) else code(json.dumps(default))


def _meaning(schema: Schema, root: Schema) -> str:
    options = [schema, *schema.get("anyOf", [])]
    limits = [
        text.format(option[key])
        for option in options
        for key, text in _LIMITS.items()
        if key in option and option.get("type") != "null"
    ]
    text = schema.get("description", "") or root["$defs"].get(schema.get("$ref", "").rpartition("/")[2], {}).get(
        "description", ""
    )
    return " ".join([text, f"({', '.join(dict.fromkeys(limits))})" if limits else ""]).strip()
