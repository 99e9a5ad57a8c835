"""Secrets in the configuration: references to them, never their values."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from contracts.errors import ConfigError
from contracts.settings.environ import environment

_FORM = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class SecretRef:
    """Points at a secret: `env:NAME` or `file:PATH`; the value is read when it is needed and never printed."""

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        if not _FORM.fullmatch(reference):
            # The text found is not repeated: it may be the secret itself.
            message = "must be a reference, env:NAME or file:PATH, not the secret itself"
            raise ValueError(message)
        self.reference = reference

    def resolve(self) -> bytes:
        """Return the secret's bytes; the line end of a file is dropped.

        Raises:
            ConfigError: the variable is not set or empty, or the file cannot be read or is empty.
        """
        kind, _, name = self.reference.partition(":")
        value = environment().get(name, "").encode() if kind == "env" else self._read(Path(name))
        if not value:
            message = f"secret {self.reference} is not set or empty"
            raise ConfigError(message)
        return value

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes().rstrip(b"\r\n")
        except OSError as error:
            message = f"secret {self.reference} cannot be read: {error.strerror}"
            raise ConfigError(message) from error

    def __repr__(self) -> str:
        return f"SecretRef({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretRef) and other.reference == self.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    @classmethod
    def _parse(cls, value: Any) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            message = "must be a reference, env:NAME or file:PATH"
            raise ValueError(message)  # noqa: TRY004 - pydantic turns only ValueError into a located problem
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate from a string, serialise as the reference."""
        return core_schema.no_info_plain_validator_function(
            cls._parse,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.reference),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the two forms."""
        return {
            "type": "string",
            "pattern": _FORM.pattern,
            "description": "Reference to a secret: env:NAME or file:PATH.",
        }
