"""What every section of the configuration has in common."""

import ast
import errno
import inspect
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from contracts.settings.marks import Unusable


@dataclass(frozen=True)
class Form:
    """The form of a text and the words for it: whoever has mistyped a value should not have to read a pattern.

    Attributes:
        pattern: regular expression, as in the JSON Schema.
        words: what is expected; continue "must be".
        to_lower: the value is taken in small letters.
        max_length: characters; None = what the pattern says.
    """

    pattern: str
    words: str
    to_lower: bool = False
    max_length: int | None = None

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate as text of this form; whatever is wrong with it is said in the same words."""
        text = core_schema.str_schema(pattern=self.pattern, to_lower=self.to_lower, max_length=self.max_length)
        return core_schema.custom_error_schema(
            text,
            custom_error_type="form",
            custom_error_message="must be {words}",
            custom_error_context={"words": self.words},
        )


def checked_url(text: str) -> str:
    """Return the URL of a server.

    Raises:
        ValueError: nobody could connect to it: no host, a name that no resolver takes, a port that is none.
    """
    try:
        parts = urlsplit(text)
        # Both look closer when they are asked for.
        is_one = parts.scheme in {"http", "https"} and bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        message = "must be a URL with a host, and with a port of 1 to 65535 if any, such as http://127.0.0.1:8000"
        raise ValueError(message)
    return text


Lane = Annotated[str, Form("^(interactive|standard|bulk)$", "interactive, standard or bulk")]
GroupName = Annotated[
    str, Form(r"^[A-Za-z0-9._-]{1,200}$", "letters, digits, dots, dashes and underscores, at most 200")
]
Pointer = Annotated[str, Form(r"^(/([^~/]|~[01])*)+$", "a JSON pointer, such as /account/id")]
HttpUrl = Annotated[str, Form("^https?://", "a URL that begins with http:// or https://"), AfterValidator(checked_url)]
ListenHost = Annotated[str, Form(r"^\S+$", "an address or a host name to listen on, such as 127.0.0.1")]
Port = Annotated[int, Field(ge=0, le=65535)]
# Taken by somebody else, or for the superuser only. Everything else is about the host.
_OF_PORTS = frozenset({errno.EADDRINUSE, errno.EACCES})
Seconds = Annotated[float, Field(gt=0, le=30 * 86400)]


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL: an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(
    section: str,
    host: str,
    port: int,
    error: OSError | ValueError,
    keys: tuple[str, str] = ("health_host", "health_port"),
) -> Unusable:
    """Return what is said of an address that a program cannot listen on, at the setting that has to be changed.

    Args:
        section: of the settings.
        host: found there.
        port: likewise.
        error: ValueError for a name that no resolver takes.
        keys: of host and port.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number in _OF_PORTS:
        key, what = keys[1], "choose another, or 0 for any free one"
    else:
        key, what = keys[0], "choose an address of this machine, or 127.0.0.1 for none but itself"
    # asyncio's text has the address once more; negative numbers are the resolver's.
    system = os.strerror(number) if number is not None and number > 0 else None
    reason = system or (error.strerror if isinstance(error, OSError) else None) or error
    text = f"{section}.{key}: cannot listen on {authority(host, port)}: {reason}; {what}"
    return Unusable([((section, key), text)])


def truths(data: Any, settings: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """Yield where data that became settings has true or false and pydantic has taken it for the number 1 or 0."""
    if isinstance(data, bool) and isinstance(settings, int | float) and not isinstance(settings, bool):
        yield path, data
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, part in parts:
        if isinstance(part, bool | dict | list):
            yield from truths(part, _part(settings, step), (*path, step))


def _part(settings: Any, step: Any) -> Any:
    if isinstance(settings, BaseModel):
        return getattr(settings, str(step), None)
    try:
        return settings[step]
    except (IndexError, KeyError, TypeError):
        return None


def _describe(schema: dict[str, Any], section: type["Section"]) -> None:
    """Put the docstrings under the fields into a JSON Schema as their descriptions."""
    # A section's own words win over those of what it extends, and these over the general ones of a type.
    for parent in reversed(section.__mro__):
        if issubclass(parent, Section):
            for name, text in _docstrings(parent):
                if name in schema["properties"]:
                    schema["properties"][name]["description"] = text


def _docstrings(section: type["Section"]) -> Iterator[tuple[str, str]]:
    """Yield each field that has a docstring under it, and the docstring."""
    (body,) = ast.parse(inspect.getsource(section)).body
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, below in itertools.pairwise(statements):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


class Section(BaseModel):
    """A frozen, typed section; unknown keys are refused, docstrings under fields are their documentation."""

    # Not pydantic's `use_attribute_docstrings`: it reads the source of each class when the class is made, which was
    # half the time that every program of ours needed to import its settings. Only the JSON Schema wants the texts.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_describe, allow_inf_nan=False)


def _existing_file(path: Path, info: ValidationInfo) -> Path:
    context: dict[str, Any] = info.context or {}
    full = path if path.is_absolute() else Path(context.get("base", ".")) / path
    try:
        if full.is_file():
            return full
    except OSError as error:
        # A name that is too long.
        raise ValueError(error.strerror) from error
    # A folder's name may be no UTF-8, and then no text that pydantic takes.
    message = f"no such file: {str(full).encode(errors='backslashreplace').decode()}"
    raise ValueError(message)


ExistingFile = Annotated[Path, AfterValidator(_existing_file)]
