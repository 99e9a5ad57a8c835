"""Renders a route's prompt from an event.

Templates come from the configuration, which is trusted; event data is not: it only ever reaches the user message, it is
data to the template engine, and control and zero-width characters are taken out of it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.codec import decode_any_json
from contracts.envelope import Event
from contracts.errors import ConfigError, ContextTooLong, PromptFailed, Undecodable
from contracts.payloads import Message
from contracts.settings import Prompt as PromptSettings

# C0 and C1 controls but tab and line ends, zero-width and bidirectional marks: they hide instructions from human eyes.
_HIDDEN = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u2064\\u2066-\\u2069\\ufeff]"
)
_DIGEST_CHARS = 16
# What filters and operators raise when the data is not of the shape that the template expects.
_RENDER_ERRORS = (
    TemplateError, TypeError, ValueError, AttributeError, ArithmeticError, LookupError, RecursionError,
)  # fmt: skip


# In a template these are methods, also where the data has a field of the name: as in Jinja itself.
_DICT_METHODS = frozenset(dir(dict))


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a short way to the fields of JSON objects: it costs an exception per field otherwise."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a field, attribute or item, or what stands for one that is not there."""
        if type(obj) is dict and attribute in obj and attribute not in _DICT_METHODS:
            return obj[attribute]
        return super().getattr(obj, attribute)


class PromptTemplate:
    """A route's compiled templates.

    Args:
        settings: the route's prompt section.
        where: for error texts, the route's name.

    Raises:
        ConfigError: a template cannot be parsed, or a file of the prompt cannot be read.
    """

    def __init__(self, settings: PromptSettings, where: str) -> None:
        environment = _Environment(undefined=StrictUndefined, autoescape=False)
        environment.filters["tojson"] = _to_json
        self.system = settings.system or _read(settings.system_file, where)
        text = settings.user if settings.user is not None else _read(settings.user_file, where)
        file = f" {settings.user_file}" if settings.user is None else ""
        try:
            parsed = environment.parse(text)
            used = meta.find_undeclared_variables(parsed)
            others = list(meta.find_referenced_templates(parsed))
            self._user = environment.from_string(text)
            # Jinja reads its globals from a chain of mappings anew for every rendering.
            self._globals = dict(self._user.globals)
            self._user.globals = {}
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            message = f"route {where}: prompt template{file}, line {line}: {error.message}"
            raise ConfigError(message) from error
        except (SyntaxError, ValueError, RecursionError) as error:
            # What Jinja lets pass and Python does not, such as two parameters of one name.
            message = f"route {where}: prompt template{file}: {getattr(error, 'msg', error)}"
            raise ConfigError(message) from error
        if others:
            message = f"route {where}: prompt template{file}: no other template can be taken in"
            raise ConfigError(message)
        self._max_chars = settings.max_chars
        self._needs_data = "data" in used
        self._needs_text = "text" in used
        # Names the prompt in a result's provenance, so that a change of prompt shows.
        self.digest = hashlib.sha256(f"{self.system}\0{text}".encode()).hexdigest()[:_DIGEST_CHARS]

    def render(self, event: Event) -> tuple[Message, ...]:
        """Return the messages for an event.

        Raises:
            Undecodable: the template needs the parsed body and it is not JSON.
            PromptFailed: a field the template uses is not there, or the template fails.
            ContextTooLong: the rendered text is above the route's limit.
        """
        variables: dict[str, Any] = {**self._globals, "event": event}
        if self._needs_text:
            variables["text"] = _visible(event.data.decode("utf-8", errors="replace"))
        try:
            if self._needs_data:
                data = decode_any_json(event.data)
                variables["data"] = data if _is_plain(event.data) else _clean(data)
            # As Template.render, which makes a dictionary more, and rewrites tracebacks that nobody reads here.
            rendered = "".join(self._user.root_render_func(self._user.new_context(variables, shared=True)))
        except Undecodable:
            raise
        except _RENDER_ERRORS as error:
            message = f"prompt cannot be rendered: {error}"
            # Jinja's own errors name fields; the others quote values.
            kind = str(error) if isinstance(error, TemplateError) else type(error).__name__
            raise PromptFailed(message, f"prompt cannot be rendered: {kind}") from error
        if len(rendered) > self._max_chars:
            message = f"rendered prompt has {len(rendered)} characters, the route allows {self._max_chars}"
            raise ContextTooLong(message)
        return (Message("user", rendered),)


def _read(path: Path | None, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        message = f"route {where}: prompt file {path} cannot be read: {reason}"
        raise ConfigError(message) from error


def _visible(text: str) -> str:
    # Nothing that is hidden is printable, and most texts are all printable: a scan in C spares the expression.
    return text if text.isprintable() else _HIDDEN.sub("", text)


def _is_plain(raw: bytes) -> bool:
    """Tell whether JSON has nothing hidden in it, by a scan in C: no escapes, and all of it printable."""
    return b"\\" not in raw and raw.isascii() and raw.decode("ascii").isprintable()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else _visible(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key if key.isprintable() else _visible(key): _clean(item) for key, item in value.items()}
    return value


def _to_json(value: Any, indent: int | None = None) -> str:
    """Write JSON with sorted keys: the same event gives the same prompt, which prompt caches need."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent)
