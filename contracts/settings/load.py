"""Loads penstock.yaml and the environment into Settings, or says what is wrong and where.

Blocking: reads one file, and the files it names are checked for existence.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contracts.errors import ConfigError
from contracts.settings.egress import DOOR_KINDS
from contracts.settings.environ import environment, overrides
from contracts.settings.marks import Document, Path, parse, parse_value
from contracts.settings.root import Settings

DEFAULT_FILE = "penstock.yaml"
_MAX_SHOWN_CHARS = 80
# Values under these keys may be a secret pasted by mistake: never repeated.
_SECRET_KEYS = frozenset(
    {
        "value",
        "key",
        "api_key",
        "bearer_token",
        "ticket_secret",
        "sasl_password",
        "secrets",
        "api_keys",
        "consumer_secret",
        "private_key",
    }
)
# Names of unions' members, by section.
_TAGS: Mapping[int | str, frozenset[str]] = {
    "providers": frozenset({"embedded", "bedrock", "openai", "fake"}),
    "egress": DOOR_KINDS,
}
_PLAIN_WORDS = {
    "model_type": "must be a section: indented lines of `key: value`",
    "model_attributes_type": "must be a section: indented lines of `key: value`",
    "dict_type": "must be a section: indented lines of `key: value`",
    "tuple_type": "must be a list",
}


def load(path: FilePath | str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Load the configuration.

    Args:
        path: the file; `PENSTOCK_CONFIG`, else ./penstock.yaml, when None.
        environ: in place of the process environment, for tests.

    Raises:
        ConfigError: one line per problem: file, line, key, what was found, what is allowed.
    """
    environ = environment() if environ is None else environ
    file = config_file(path, environ)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        hint = "" if path else " (name one with --config or PENSTOCK_CONFIG)"
        message = f"{file}: cannot be read: {reason}{hint}"
        raise ConfigError(message) from error
    return build(parse(text, str(file)), environ, base=_folder(file))


def _folder(file: FilePath) -> FilePath:
    """Return the folder to which the file's relative names belong: that of the file, where it is a link its target's.

    A mounted ConfigMap of Kubernetes is the exception. There every name leads through the link `..data` to a folder
    such as `..2026_11_28_09_30_00.123`, which the next change of the ConfigMap deletes.
    """
    target = file.resolve().parent
    return file.absolute().parent if any(part.startswith("..") for part in target.parts) else target


def config_file(path: FilePath | str | None = None, environ: Mapping[str, str] | None = None) -> FilePath:
    """Return which file `load` reads."""
    environ = environment() if environ is None else environ
    return FilePath(path or environ.get("PENSTOCK_CONFIG") or DEFAULT_FILE)


def build(document: Document, environ: Mapping[str, str], base: FilePath) -> Settings:
    """Merge environment overrides into a parsed document and validate the whole.

    Raises:
        ConfigError: as `load`.
    """
    if not isinstance(document.data, dict):
        message = f"{document.name}:1: expected a mapping of sections, found {_show(document.data)}"
        raise ConfigError(message)
    origins = _apply_overrides(document, environ)
    try:
        settings = Settings.model_validate(document.data, context={"base": base})
    except ValidationError as error:
        raise _error(document, origins, _problems(error)) from error
    misfits = [(path, f"found {_show(found)}, allowed: {allowed}") for path, found, allowed in settings.misfits()]
    if misfits:
        raise _error(document, origins, misfits)
    return settings


def _apply_overrides(document: Document, environ: Mapping[str, str]) -> dict[Path, str]:
    origins: dict[Path, str] = {}
    for names, (variable, text) in overrides(environ).items():
        path, target = _place(document.data, names, variable)
        try:
            target[path[-1]] = parse_value(text)
        except ConfigError as error:
            # What YAML says may repeat a part of the value.
            reason = "not a YAML value" if _SECRET_KEYS.intersection(names) else str(error)
            message = f"environment {variable}: {reason}"
            raise ConfigError(message) from error
        origins[path] = variable
    return origins


def _place(data: dict[str, Any], names: tuple[str, ...], variable: str) -> tuple[Path, Any]:
    """Walk to the mapping or list that holds the overridden value, making sections on the way."""
    path: list[str | int] = []
    target: Any = data
    for depth, name in enumerate(names):
        is_index = isinstance(target, list) and name.isascii() and name.isdecimal()
        step: str | int = int(name) if is_index else name
        path.append(step)
        if depth == len(names) - 1:
            break
        if isinstance(target, dict) and target.get(step) is None:
            target[step] = {}
        try:
            target = target[step]
        except (IndexError, KeyError, TypeError):
            target = None
    if not isinstance(target, dict) and not (
        isinstance(target, list) and isinstance(path[-1], int) and path[-1] < len(target)
    ):
        message = f"environment {variable}: there is no setting {_dotted(tuple(path))}"
        raise ConfigError(message)
    return tuple(path), target


def _error(document: Document, origins: dict[Path, str], problems: list[tuple[Path, str]]) -> ConfigError:
    lines = []
    for path, text in problems:
        variable = _variable_of(path, document, origins)
        where = f"environment {variable}" if variable else f"{document.name}:{document.line_of(path)}"
        lines.append((0 if variable else document.line_of(path), f"{where}: {_dotted(path)}: {text}"))
    return ConfigError("\n".join(text for _, text in sorted(dict.fromkeys(lines))))


def _variable_of(path: Path, document: Document, origins: dict[Path, str]) -> str | None:
    """Name the variable that set a path, a part of it, or made the section that the file does not have."""
    above = (origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins)
    below = (origin for place, origin in origins.items() if place[: len(path)] == path and path not in document.lines)
    return next(above, None) or next(below, None)


def _problems(error: ValidationError) -> list[tuple[Path, str]]:
    # A list whose only item is wrong is said to be too short as well.
    return [_problem(d) for d in error.errors() if not (d["type"] == "too_short" and d["input"])]


def _problem(details: ErrorDetails) -> tuple[Path, str]:
    path = _without_tags(details["loc"])
    kind, found = details["type"], details["input"]
    if kind == "extra_forbidden":
        return path, f"unknown key{_near(path)}"
    if kind == "missing":
        return path, "is required"
    if kind == "union_tag_not_found":
        return (*path, "kind"), "is required"
    if kind == "union_tag_invalid":
        return (*path, "kind"), f"found {_show(details['ctx']['tag'])}, allowed: {details['ctx']['expected_tags']}"
    text = _PLAIN_WORDS.get(kind) or details["msg"].removeprefix("Value error, ")
    if isinstance(found, dict | list) or _SECRET_KEYS.intersection(path):
        return path, text
    return path, f"{text}; found {_show(found)}"


def _without_tags(loc: tuple[int | str, ...]) -> Path:
    """Drop what pydantic puts into a location and the user did not write: union tags, key markers."""
    return tuple(
        part
        for index, part in enumerate(loc)
        if part != "[key]" and not (index == 2 and part in _TAGS.get(loc[0], ()))  # noqa: PLR2004
    )


def _near(path: Path) -> str:
    """Name the allowed keys, the likeliest first."""
    section = _section_at(path[:-1])
    if section is None:
        return ""
    close = difflib.get_close_matches(str(path[-1]), section.model_fields, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(section.model_fields)}"


def _section_at(path: Path) -> type[BaseModel] | None:
    """Return the section class at a path, following lists and mappings of sections."""
    section: type[BaseModel] = Settings
    parts = iter(path)
    for part in parts:
        field = section.model_fields.get(str(part))
        inner = list(_sections_in(field.annotation)) if field else []
        if len(inner) != 1:
            return None
        section = inner[0]
        if getattr(field.annotation if field else None, "__origin__", None) in {tuple, dict}:
            # The next part is the index or name of an element.
            next(parts, None)
    return section


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _sections_in(argument)


def _dotted(path: Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(whole file)"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[: _MAX_SHOWN_CHARS - 3]}..."
