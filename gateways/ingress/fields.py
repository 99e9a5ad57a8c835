"""Expands the field templates of a source: `header:NAME`, `json:/pointer`, `form:NAME`, and text with them in braces.

Fields of a form count when they stand there once, are UTF-8, and the form has at most a few hundred.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
from jsonpointer import JsonPointer, JsonPointerException

from contracts.codec import decode_any_json
from contracts.errors import ConfigError, Undecodable
from gateways.ingress.text import single_header

_BRACES = re.compile(r"\{([^{}]*)\}")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
_ABSENT = object()
# As Twilio's verifier: the longest forms of senders have some sixty.
_MAX_FIELDS = 500

Read = Callable[["Request"], str | None]


class Request:
    """A verified request, from which fields are read; the body is parsed at most once, and only if a field needs it."""

    def __init__(self, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.headers = headers
        self.body = body
        self._document: Any = _ABSENT
        self._form: dict[str, list[str]] | None = None

    def document(self) -> Any:
        """Return the body as JSON; an empty mapping, in which no pointer leads anywhere, when it is not JSON."""
        if self._document is _ABSENT:
            try:
                self._document = decode_any_json(self.body)
            except Undecodable:
                self._document = {}
        return self._document

    def form(self) -> dict[str, list[str]]:
        """Return the body as a form; empty when it is none."""
        if self._form is None:
            try:
                self._form = parse_qs(
                    self.body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS
                )
            except ValueError:
                self._form = {}
        return self._form


class Field(NamedTuple):
    """One compiled template.

    Attributes:
        headers: names of the headers it reads.
    """

    template: str
    parts: tuple[str | Read, ...]
    headers: frozenset[bytes] = frozenset()

    def expand(self, request: Request) -> str | None:
        """Return the text; None when a part of it is missing from the request."""
        texts = []
        for part in self.parts:
            text = part if isinstance(part, str) else part(request)
            if text is None:
                return None
            texts.append(text)
        return "".join(texts)


def compile_field(template: str, where: str) -> Field:
    """Compile a template.

    Raises:
        ConfigError: it is not one; names `where`.
    """
    if template.startswith(("header:", "json:", "form:")):
        return Field(template, (_reader(template, where),), _headers((template,)))
    pieces = _BRACES.split(template)
    if any("{" in piece or "}" in piece for piece in pieces[::2]):
        message = f"{where}: unbalanced braces in {template!r}"
        raise ConfigError(message)
    parts = [_reader(piece, where) if index % 2 else piece for index, piece in enumerate(pieces)]
    return Field(template, tuple(part for part in parts if part != ""), _headers(pieces[1::2]))


def compile_id(template: str, where: str) -> Field:
    """Compile the template of an event's id, which must differ from event to event.

    Raises:
        ConfigError: as `compile_field`; or it reads nothing of the request, so that every event but the first would be
            taken for a repetition.
    """
    field = compile_field(template, where)
    if all(isinstance(part, str) for part in field.parts):
        message = (
            f"{where}: {template!r} is the same for every event; an id is read from header:NAME, json:/pointer or "
            "form:NAME"
        )
        raise ConfigError(message)
    return field


def compile_optional(
    template: str | None, where: str, compile_one: Callable[[str, str], Field] = compile_field
) -> Field | None:
    """Compile a template, where there is one.

    Raises:
        ConfigError: as the function that compiles it.
    """
    return None if template is None else compile_one(template, where)


def _headers(references: Iterable[str]) -> frozenset[bytes]:
    found = (reference.partition(":") for reference in references)
    return frozenset(name.lower().encode() for kind, _, name in found if kind == "header")


def _reader(reference: str, where: str) -> Read:
    kind, _, name = reference.partition(":")
    if kind == "header" and _HEADER_NAME.fullmatch(name.lower()):
        header = name.lower().encode()
        return lambda request: single_header(request.headers, header)
    if kind == "json" and name.startswith("/"):
        try:
            pointer = JsonPointer(name)
        except JsonPointerException as error:
            message = f"{where}: {name!r} is not a JSON pointer"
            raise ConfigError(message) from error
        return lambda request: _scalar(pointer, request.document())
    if kind == "form" and name:
        return lambda request: _only(request.form().get(name))
    message = f"{where}: {reference!r} is neither header:NAME nor json:/pointer nor form:NAME"
    raise ConfigError(message)


def _only(values: list[str] | None) -> str | None:
    return values[0] if values is not None and len(values) == 1 and values[0] else None


def _scalar(pointer: JsonPointer, document: Any) -> str | None:
    """Return a string, number or boolean as text; None for anything else."""
    try:
        value = pointer.resolve(document, None)
    except (JsonPointerException, TypeError, ValueError):
        return None
    if isinstance(value, str):
        return value or None
    return msgspec.json.encode(value).decode() if isinstance(value, bool | int | float) else None
