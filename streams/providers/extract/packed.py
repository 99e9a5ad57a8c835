"""Recognises a packed call: several events in one prompt, one answer for each; see docs/batching.md."""

from collections.abc import Sequence
from typing import Any

import msgspec

# Where the schema of one event's output stands in the schema of a packed answer.
_OUTPUT = ("properties", "answers", "items", "properties", "output")
_DEFINITIONS = ("$defs", "definitions")


class PackedEvent(msgspec.Struct, frozen=True):
    """One event of a packed prompt."""

    id: str
    text: str


class _Prompt(msgspec.Struct, frozen=True):
    events: list[PackedEvent]


class Pack(msgspec.Struct, frozen=True):
    """A packed call: its events, and the schema that each of them would have in a call of its own."""

    events: list[PackedEvent]
    output_schema: dict[str, Any]


def of(texts: Sequence[str], schema: dict[str, Any] | None) -> Pack | None:
    """Return what is packed into a call; None when it is an ordinary one."""
    output: Any = schema
    for step in _OUTPUT:
        output = output.get(step) if isinstance(output, dict) else None
    if schema is None or not isinstance(output, dict) or len(texts) != 1:
        return None
    try:
        prompt = msgspec.json.decode(texts[0].encode("utf-8", "replace"), type=_Prompt)
    except msgspec.DecodeError:
        return None
    own: dict[str, Any] = _unwrapped(output)
    return Pack(prompt.events, own | {name: schema[name] for name in _DEFINITIONS if name in schema})


def _unwrapped(value: Any) -> Any:
    """Return a schema whose references to itself begin at its own root again."""
    prefix = "#/" + "/".join(_OUTPUT)
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: "#" + item.removeprefix(prefix) if key == "$ref" and str(item).startswith(prefix) else _unwrapped(item)
        for key, item in value.items()
    }
