"""Flattens JSON documents to labelled fields, in words a person would use."""

import functools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

MAX_FIELDS = 400
_MAX_DEPTH = 8
_MAX_LISTED = 10

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_WORD = re.compile(r"[^0-9A-Za-z\u00c0-\uffff]+")
_CUSTOM_SUFFIX = re.compile(r"__[cr]$")
_ISO_INSTANT = re.compile(r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(Z|[+-]\d\d:?\d\d)?$")
_TIME_WORDS = frozenset({"at", "date", "created", "updated", "time", "due", "timestamp", "on", "until", "closed"})
NAMING_KEYS = ("name", "full name", "display name", "login", "username", "title", "email", "label", "value", "id")
# Seconds since 1970 of 2001-09-09 and 2096-10-02: integers between them in a field named like a time are instants.
_EPOCH_RANGE = (1_000_000_000, 4_000_000_000)


class Field(NamedTuple):
    """One scalar of a document: where it was, in words, and its value as it was."""

    path: tuple[str, ...]
    value: str | int | float | bool

    @property
    def label(self) -> str:
        """The last word of the path, with its parent when alone it would say nothing."""
        last = self.path[-1]
        return f"{self.path[-2]} {last}" if last in NAMING_KEYS and len(self.path) > 1 else last

    @property
    def text(self) -> str:
        """The value for reading."""
        return readable(self.path[-1], self.value)


@functools.lru_cache(maxsize=4096)
def words(key: str) -> str:
    """Return a JSON key as lower-case words: `CloseDate`, `close_date` and `Close-Date__c` are all `close date`."""
    plain = _CUSTOM_SUFFIX.sub("", key)
    return " ".join(_NOT_WORD.sub(" ", _CAMEL.sub(" ", plain)).lower().split())


def readable(label: str, value: Any) -> str:
    """Return a scalar for reading: instants without noise, whole numbers grouped, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and _EPOCH_RANGE[0] < value < _EPOCH_RANGE[1] and _TIME_WORDS & set(label.split()):
        return _instant(datetime.fromtimestamp(value, UTC).isoformat())
    if isinstance(value, str):
        return _instant(value.strip())
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _instant(text: str) -> str:
    match = _ISO_INSTANT.match(text)
    if not match:
        return text
    if match[2] == "00:00":
        return match[1]
    zone = "" if match[3] is None else " UTC" if match[3] in ("Z", "+00:00", "+0000") else f" {match[3]}"
    return f"{match[1]} {match[2]}{zone}"


def name_of(value: Any) -> str:
    """Return what a nested object, list or scalar is called; empty when it has no name."""
    if isinstance(value, dict):
        by_words = {words(key): item for key, item in value.items() if isinstance(key, str)}
        found = (by_words[key] for key in NAMING_KEYS if isinstance(by_words.get(key), str | int))
        return str(next(found, "")).strip()
    if isinstance(value, list):
        return ", ".join(name for name in map(name_of, value[:_MAX_LISTED]) if name)
    return "" if value is None or isinstance(value, bool) else str(value).strip()


def flatten(document: Any) -> list[Field]:
    """Return the scalars of a document in document order, at most MAX_FIELDS."""
    fields: list[Field] = []
    for field in _walk(document, ()):
        if len(fields) >= MAX_FIELDS:
            break
        fields.append(field)
    return fields


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[Field]:
    if len(path) > _MAX_DEPTH:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            label = words(str(key))
            if label:
                yield from _walk(item, (*path, label))
    elif isinstance(value, list):
        yield from _walk_list(value, path)
    elif value is not None and value != "" and path:
        yield Field(path, value)


def _walk_list(values: list[Any], path: tuple[str, ...]) -> Iterator[Field]:
    names = name_of(values)
    if path and names:
        yield Field(path, names)
    for item in values[:_MAX_LISTED]:
        if isinstance(item, dict) and len(item) > 1:
            yield from _walk(item, path)
