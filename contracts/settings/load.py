"""Loads penstock.yaml and the environment into Settings, or says what is wrong and where.

Blocking: reads one file, and the files it names are checked for existence.
"""

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contracts.errors import ConfigError
from contracts.settings.egress import DOOR_KINDS
from contracts.settings.environ import environment, overrides
from contracts.settings.marks import Document, Path, Problem, Unusable, parse, parse_value
from contracts.settings.root import Settings
from contracts.settings.secrets import references
from contracts.settings.section import truths
from contracts.settings.words import NUMBERS, UNITS, WORDS

DEFAULT_FILE = "penstock.yaml"
_MAX_SHOWN_CHARS = 80
_INDEX_DIGITS = 9
# Values under these keys may be a secret pasted by mistake: never repeated.
_SECRET_KEYS = frozenset(
    {
        "value",
        "key",
        "api_key",
        "bearer_token",
        "ticket_secret",
        "former_ticket_secrets",
        "former_keys",
        "sasl_password",
        "client_secret",
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
    return build(_document(file, path), environ, base=_folder(file))


def require_secrets(
    settings: Settings,
    sections: Collection[Path],
    path: FilePath | str | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Refuse to start without the secrets that a program reads, all that are missing at once.

    Args:
        settings: what `load` has made of the file.
        sections: paths below which the program reads every secret; that of `kafka` is read where SASL is chosen: the
            password, or what a token is asked for with.
            Those in AWS Secrets Manager are not asked for here.
        path: as for `load`.
        environ: as for `load`.

    Raises:
        ConfigError: one line for each that is not set, empty, or in a file that cannot be read; with file, line, key.
    """
    problems = missing_secrets(settings, sections)
    if problems:
        raise located(Unusable(problems), path, environ)


def missing_secrets(settings: Settings, sections: Collection[Path]) -> list[Problem]:
    """Return the secrets for which `require_secrets` would refuse to start."""
    wanted = [*sections, *settings.kafka.secret_places]
    problems = []
    for place, secret in references(settings):
        if secret.kind != "aws-sm" and any(place[: len(section)] == section for section in wanted):
            try:
                secret.resolve()
            except ConfigError as error:
                problems.append((place, f"{_dotted(place)}: {error}"))
    return problems


def located(
    error: Unusable, path: FilePath | str | None = None, environ: Mapping[str, str] | None = None
) -> ConfigError:
    """Return the error with file and line, or the variable, before each of its problems; arguments as for `load`."""
    environ = environment() if environ is None else environ
    document = _document(config_file(path, environ), path)
    return _in_order(document, _apply_overrides(document, environ), error.problems)


@contextlib.contextmanager
def locating(path: FilePath | str | None = None) -> Iterator[None]:
    """Have settings that turn out to be unusable named with file and line; `path` as for `load`."""
    try:
        yield
    except Unusable as error:
        raise located(error, path) from error


def _document(file: FilePath, named: FilePath | str | None) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        hint = "" if named else " (name one with --config or PENSTOCK_CONFIG)"
        message = f"{file}: cannot be read: {error.strerror}{hint}"
        raise ConfigError(message) from error
    except UnicodeDecodeError as error:
        *lines, last = error.object[: error.start].decode().split("\n")
        message = f"{file}:{len(lines) + 1}:{len(last) + 1}: not UTF-8 text: byte 0x{error.object[error.start]:02x}"
        raise ConfigError(message) from error
    return parse(text, str(file))


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
        raise _error(document, origins, _problems(error, document.data)) from error
    misfits = [(path, f"must be a number; found {_show(found)}") for path, found in truths(document.data, settings)]
    misfits += [(path, f"found {_show(found)}, allowed: {allowed}") for path, found, allowed in settings.misfits()]
    if misfits:
        raise _error(document, origins, misfits)
    return settings


def _apply_overrides(document: Document, environ: Mapping[str, str]) -> dict[Path, str]:
    origins: dict[Path, str] = {}
    problems = []
    for names, (variable, text) in overrides(environ).items():
        try:
            path, target = _place(document.data, names)
            target[path[-1]] = parse_value(text)
            origins[path] = variable
        except ConfigError as error:
            # What YAML says may repeat a part of the value.
            is_about_value = _SECRET_KEYS.intersection(names) and not isinstance(error, _NoSuchSetting)
            problems.append(f"environment {variable}: {'not a YAML value' if is_about_value else error}")
    if problems:
        raise ConfigError("\n".join(sorted(problems)))
    return origins


class _NoSuchSetting(ConfigError):
    """Raise when a variable names a place that the file cannot have."""


def _place(data: dict[str, Any], names: tuple[str, ...]) -> tuple[Path, Any]:
    """Walk to the mapping or list that holds the overridden value, making sections on the way."""
    path: list[str | int] = []
    target: Any = data
    for depth, name in enumerate(names):
        is_index = isinstance(target, list) and name.isascii() and name.isdecimal() and len(name) <= _INDEX_DIGITS
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
        message = f"there is no setting {_dotted(tuple(path))}"
        raise _NoSuchSetting(message)
    return tuple(path), target


def _error(document: Document, origins: dict[Path, str], problems: list[tuple[Path, str]]) -> ConfigError:
    return _in_order(document, origins, [(path, f"{_dotted(path)}: {text}") for path, text in problems])


def _in_order(document: Document, origins: dict[Path, str], problems: Iterable[tuple[Path, str]]) -> ConfigError:
    """Return the error of problems whose texts begin with the setting."""
    lines = []
    for path, text in problems:
        variable = _variable_of(path, document, origins)
        where = f"environment {variable}" if variable else f"{document.name}:{document.line_of(path)}"
        lines.append((0 if variable else document.line_of(path), f"{where}: {text}"))
    return ConfigError("\n".join(text for _, text in sorted(dict.fromkeys(lines))))


def _variable_of(path: Path, document: Document, origins: dict[Path, str]) -> str | None:
    """Name the variable that set a path, a part of it, or made the section that the file does not have."""
    above = (origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins)
    # The nearest section around it that the file does not have either: what is missing in it is for who made it.
    known = next(n for n in range(len(path), -1, -1) if path[:n] in document.lines or n == 0)
    made = (path[:n] for n in range(len(path), known, -1))
    below = (origin for section in made for place, origin in origins.items() if place[: len(section)] == section)
    return next(above, None) or next(below, None)


def _problems(error: ValidationError, data: Any) -> list[tuple[Path, str]]:
    # Members of a union complain one by one of the same value.
    texts: dict[tuple[Path, str], list[str]] = {}
    found: dict[tuple[Path, str], Any] = {}
    for details in error.errors():
        # A list whose only item is wrong is said to be too short as well.
        if details["type"] == "too_short" and details["input"]:
            continue
        path, text = _problem(details, data)
        place = (path, repr(details["input"]))
        found[place] = details["input"]
        texts.setdefault(place, []).append(text)
    return [(place[0], _either(said) + _found(place[0], found[place], said)) for place, said in texts.items()]


def _problem(details: ErrorDetails, data: Any) -> tuple[Path, str]:
    path, kind = _without_tags(details, data), details["type"]
    if kind == "extra_forbidden":
        return path, f"unknown key{_near(path)}"
    if kind == "missing":
        return path, "is required"
    if kind == "union_tag_not_found":
        return (*path, "kind"), "is required"
    if kind == "union_tag_invalid":
        return (*path, "kind"), f"found {_show(details['ctx']['tag'])}, allowed: {details['ctx']['expected_tags']}"
    context = {name: _plain(value) for name, value in details.get("ctx", {}).items()}
    text = WORDS[kind].format(**context) if kind in WORDS else details["msg"].removeprefix("Value error, ")
    if kind in NUMBERS:
        text += next((unit for end, unit in UNITS.items() if str(path[-1]).endswith(end)), "")
    if kind == "literal_error":
        text += _meant(details["input"], re.findall(r"'([^']*)'", str(context["expected"])))
    return path, text


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _meant(found: Any, allowed: list[str]) -> str:
    close = difflib.get_close_matches(str(found), allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _either(texts: list[str]) -> str:
    """Join what the members of a union say."""
    first, *others = dict.fromkeys(texts)
    return ", or ".join([first, *(text.removeprefix("must be ") for text in others)])


def _found(path: Path, value: Any, texts: list[str]) -> str:
    """Return the words for the value found, unless the text says enough or the value is nobody's business."""
    says_enough = texts[0].startswith(("found ", "unknown key", "is required"))
    if says_enough or isinstance(value, dict | list) or _is_private(path):
        return ""
    return f"; found {_show(value)}"


def _is_private(path: Path) -> bool:
    """Tell whether a secret may stand there by mistake, also in place of its name."""
    names = [part for part in path if isinstance(part, str)]
    return bool(_SECRET_KEYS.intersection(names[-1:])) or (
        names[-1:] == ["id"] and bool(_SECRET_KEYS.intersection(names[:-1]))
    )


def _without_tags(details: ErrorDetails, data: Any) -> Path:
    """Drop what pydantic puts into a location and the user did not write: names of unions' members, key markers."""
    path: list[int | str] = []
    here, loc = data, details["loc"]
    for index, part in enumerate(loc):
        is_absent_key = details["type"] == "missing" and index == len(loc) - 1
        is_tag = index == 2 and part in _TAGS.get(loc[0], ())  # noqa: PLR2004
        if is_absent_key or (_has(here, part) and not is_tag):
            path.append(part)
            here = None if is_absent_key else here[part]
    return tuple(path)


def _has(here: Any, part: int | str) -> bool:
    if isinstance(here, list):
        return isinstance(part, int) and part < len(here)
    return isinstance(here, dict) and part in here


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
    if value is None:
        return "nothing"
    # As the file has it, not as Python does.
    text = str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, date) else repr(value)
    # A URL may carry a password.
    text = re.sub(r"//\S*@", "//***@", text)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[: _MAX_SHOWN_CHARS - 3]}..."
