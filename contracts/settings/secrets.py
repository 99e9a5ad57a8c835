"""Secrets in the configuration: references to them, never their values."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from contracts.errors import ConfigError
from contracts.settings.environ import environment
from contracts.settings.section import Form

# The characters of a secret's name or ARN are those that Secrets Manager allows; none is a `#`.
_FORM = re.compile(r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|aws-sm:[A-Za-z0-9/_+=.@:-]{1,2048}(#[^#\s]{1,256})?)$")
_FORMS = "env:NAME, file:PATH or aws-sm:NAME"

Name = Annotated[
    str,
    Form(
        r"^[a-z0-9][a-z0-9_.-]{0,62}$",
        "a name: small letters, digits, dots, dashes and underscores, at most 63, the first a letter or digit",
    ),
]


class SecretRef:
    """Points at a secret: `env:NAME`, `file:PATH` or `aws-sm:NAME`; read when it is needed and never printed.

    `aws-sm:NAME-OR-ARN` is a secret of AWS Secrets Manager, `aws-sm:NAME-OR-ARN#FIELD` a field of its JSON; only
    `sources` and `gateway.api_keys` can have one.
    """

    __slots__ = ("reference",)

    def __init__(self, reference: str) -> None:
        if not _FORM.fullmatch(reference):
            # The text found is not repeated: it may be the secret itself.
            message = f"must be a reference, {_FORMS}, not the secret itself"
            raise ValueError(message)
        self.reference = reference

    @property
    def kind(self) -> str:
        """Where the secret lies: env, file or aws-sm."""
        return self.reference.partition(":")[0]

    @property
    def name(self) -> str:
        """The variable, the path, or the name in AWS Secrets Manager with its field."""
        return self.reference.partition(":")[2]

    def resolve(self) -> bytes:
        """Return the secret's bytes; the line end of a file is dropped.

        Raises:
            ConfigError: the variable is not set or empty, the file cannot be read or is empty, or it lies in AWS
                Secrets Manager, which is not asked from here.
        """
        if self.kind == "aws-sm":
            message = f"secret {self.reference} can only be used by the gateway"
            raise ConfigError(message)
        # A variable may hold any bytes, as the output of a random generator.
        value = os.fsencode(environment().get(self.name, "")) if self.kind == "env" else self._read(Path(self.name))
        if not value.strip():
            message = f"secret {self.reference} is not set or empty"
            raise ConfigError(message)
        return value

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes().rstrip(b"\r\n")
        except (OSError, ValueError) as error:
            # Not OSError: a NUL in the path.
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"secret {self.reference} cannot be read: {reason}"
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
            message = f"must be a reference, {_FORMS}"
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
        """Describe the forms."""
        return {
            "type": "string",
            "pattern": _FORM.pattern,
            "description": f"Reference to a secret: {_FORMS}.",
        }


def references(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], SecretRef]]:
    """Yield every secret reference below a value, wherever sections may put one, with its place."""
    if isinstance(value, SecretRef):
        yield path, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from references(item, (*path, name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from references(item, (*path, index))
    elif hasattr(value, "model_fields_set"):
        for name in type(value).model_fields:
            yield from references(getattr(value, name), (*path, name))
