"""Fills a JSON Schema from what a prompt says; a field without a value is left out, null, or refused."""

import re
from typing import Any

import jsonschema_rs

from contracts.errors import InvalidRequest
from streams.providers.extract import guess, lists
from streams.providers.extract.fields import words
from streams.providers.extract.guess import MISSING
from streams.providers.extract.summary import Content

_MAX_DEPTH = 12


def fill(schema: dict[str, Any], content: Content) -> Any:
    """Return a value that satisfies the schema.

    Raises:
        InvalidRequest: the schema is not one, or a required field cannot be filled; the text names it.
    """
    try:
        validator = jsonschema_rs.validator_for(schema)
    except (ValueError, jsonschema_rs.ValidationError) as error:
        message = f"output schema is not valid: {error}"
        raise InvalidRequest(message) from error
    value = Filler(schema, content).value(schema, "", "summary")
    problem = next(iter(validator.iter_errors(value)), None)
    if value is MISSING or problem is not None:
        pointer = "/" + "/".join(map(str, problem.instance_path)) if problem else "/"
        raise _cannot_fill(pointer, problem.message if problem else "nothing in the prompt speaks for it")
    return value


def _cannot_fill(pointer: str, why: str) -> InvalidRequest:
    advice = "make the field optional or nullable, or use a language model"
    return InvalidRequest(f"the extractive model cannot fill {pointer or '/'}: {why}; {advice}")


class Filler:
    """One walk over one schema."""

    def __init__(self, root: dict[str, Any], content: Content) -> None:
        self._root = root
        self._content = content
        self._sure = guess.Certainty()

    def value(self, schema: Any, pointer: str, name: str) -> Any:
        """Return a value for a subschema, or MISSING; `name` is what the field is called, in words."""
        if not isinstance(schema, dict) or pointer.count("/") > _MAX_DEPTH:
            return self._content.summary() if schema is True else MISSING
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return guess.label(schema, name, self._content, self._sure)
        branches = schema.get("anyOf") or schema.get("oneOf")
        if branches:
            return self._first(branches, pointer, name)
        kinds = schema.get("type", self._implied(schema))
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            found = self._of_type(kind, schema, pointer, name)
            if found is not MISSING:
                return found
        return None if "null" in kinds and kinds != "null" else MISSING

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema with local references and allOf merged into it."""
        merged = dict(schema)
        for _ in range(_MAX_DEPTH):
            parts = merged.pop("allOf", [])
            reference = merged.pop("$ref", None)
            if isinstance(reference, str) and reference.startswith("#"):
                parts = [*parts, _at(self._root, reference)]
            if not parts:
                break
            for part in parts:
                merged = _merged(part, merged) if isinstance(part, dict) else merged
        return merged

    @staticmethod
    def _implied(schema: dict[str, Any]) -> str:
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _first(self, branches: list[Any], pointer: str, name: str) -> Any:
        """Return the first branch's value that can be filled; null comes last."""
        ordered = sorted(branches, key=lambda branch: isinstance(branch, dict) and branch.get("type") == "null")
        for branch in ordered:
            try:
                found = self.value(branch, pointer, name)
            except InvalidRequest:
                continue
            if found is not MISSING:
                return found
        return MISSING

    def _of_type(self, kind: str, schema: dict[str, Any], pointer: str, name: str) -> Any:
        if kind == "object":
            return self._object(schema, pointer)
        if kind == "array":
            return self._array(schema, pointer, name)
        if kind == "string":
            return guess.string(schema, name, self._content, self._sure)
        if kind in ("number", "integer"):
            return guess.number(schema, name, self._content, self._sure)
        if kind == "boolean":
            return guess.boolean(schema, name, self._content)
        return None if kind == "null" else MISSING

    def _object(self, schema: dict[str, Any], pointer: str) -> dict[str, Any]:
        required = set(schema.get("required", ()))
        # Choices first: confidences and reasons speak of them, whatever the order of the schema.
        properties = dict(schema.get("properties", {}))
        ordered = sorted(
            properties, key=lambda key: not (isinstance(properties[key], dict) and "enum" in properties[key])
        )
        found: dict[str, Any] = {}
        for key in ordered:
            value = self.value(properties[key], f"{pointer}/{key}", words(key) or key)
            if value is MISSING and key in required:
                value = self._fallback(properties[key], words(key) or key)
                if value is MISSING:
                    path = f"{pointer}/{key}"
                    raise _cannot_fill(path, "nothing in the prompt speaks for it")
            if value is not MISSING:
                found[key] = value
        return {key: found[key] for key in properties if key in found}

    def _fallback(self, schema: Any, name: str) -> Any:
        """Return the sentence nearest to a required text field that no value of the prompt belongs to."""
        schema = self._resolved(schema) if isinstance(schema, dict) else {}
        if schema.get("type") != "string" or "format" in schema or "pattern" in schema:
            return MISSING
        nearest = self._content.sentences_about(f"{name} {schema.get('description', '')}", 1)
        return guess.fitted(nearest[0], schema) if nearest else MISSING

    def _array(self, schema: dict[str, Any], pointer: str, name: str) -> Any:
        items = schema.get("items", {})
        items = self._resolved(items) if isinstance(items, dict) else {}
        if "enum" in items:
            found = guess.labels(items, name, self._content)
        elif items.get("type", self._implied(items)) == "object":
            found = self._objects(items, pointer, name)
        else:
            found = lists.strings(items, name, self._content)
        if schema.get("uniqueItems"):
            found = [item for index, item in enumerate(found) if item not in found[:index]]
        found = found[: schema.get("maxItems", len(found))]
        return found if len(found) >= schema.get("minItems", 0) else MISSING

    def _objects(self, items: dict[str, Any], pointer: str, name: str) -> list[Any]:
        filled = []
        for part in lists.parts(name, self._content):
            try:
                filled.append(Filler(self._root, part).value(items, f"{pointer}/0", name))
            except InvalidRequest:
                continue
        return [item for item in filled if item]


def _merged(part: dict[str, Any], into: dict[str, Any]) -> dict[str, Any]:
    both = part | into
    if "properties" in part and "properties" in into:
        both["properties"] = part["properties"] | into["properties"]
    if "required" in part and "required" in into:
        both["required"] = [*part["required"], *into["required"]]
    return both


def _at(root: dict[str, Any], reference: str) -> Any:
    """Return what a local reference (`#/$defs/x`) points at; an empty schema when nothing."""
    value: Any = root
    for part in reference.lstrip("#").strip("/").split("/"):
        key = re.sub("~1", "/", part).replace("~0", "~")
        value = value.get(key, {}) if isinstance(value, dict) and key else value
    return value
