"""Finds what is wrong with a configuration beyond its shape: templates, schemas, secrets, events nobody would handle.

Blocking: reads the files that the configuration names; with secrets, also asks AWS Secrets Manager.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema_rs
from jinja2 import TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.codec import decode_any_json
from contracts.errors import ConfigError, Undecodable
from contracts.kafka_config import SESSION_LIMITS_MS
from contracts.settings import Match, OpenAIProvider, RouteSettings, Settings, Unusable, environment, located, parse
from contracts.settings.callback_url import read_url
from contracts.settings.egress import CallbackDoor, CallbackSection
from contracts.settings.environ import near_misses
from contracts.settings.load import DEFAULT_FILE
from contracts.settings.marks import Document, Problem
from contracts.settings.marks import Path as SettingPath
from contracts.settings.secrets import references
from gateways.egress.addresses import AddressPolicy
from gateways.egress.tickets import Tickets
from gateways.ingress.fields import compile_field, compile_id
from gateways.ingress.secrets import Secrets, SecretStore
from gateways.parts import sender_problems

PROGRAMS = ("gateway", "worker", "egress", "ingress", "lambda", "batch", "hand-over", "topics")
VARIABLES = frozenset({"event", "data", "text"})
_TEMPLATES = ImmutableSandboxedEnvironment(autoescape=False)
_TAKES_IN = re.compile(r"\{%[-+]?\s*(include|import|from|extends)\b")
_FIELDS = {"type": compile_field, "id": compile_id, "key": compile_field, "subject": compile_field}


def document(file: Path | None) -> Document:
    """Return the file that `load` has just accepted, with its line numbers."""
    path = Path(file or environment().get("PENSTOCK_CONFIG") or DEFAULT_FILE)
    return parse(path.read_text(encoding="utf-8"), str(path))


def problems(settings: Settings, source: Document, programs: Collection[str] | None = ()) -> list[str]:
    """Return one line per problem: where, which setting, what is wrong.

    Args:
        settings: what was made of the file.
        source: the file, with its line numbers.
        programs: whose secrets are read, of PROGRAMS; None = those of all.
    """
    found = [line for index, route in enumerate(settings.routes) for line in _of_route(index, route, source)]
    found += _of_fields(settings, source)
    found += _internal_callbacks(settings, source)
    # A source is made as a whole, and complains of its templates once more.
    known = {line.partition(": ")[2] for line in found}
    more = _unresolved(settings, source, programs) if programs is None or programs else ()
    return found + [line for line in more if line.partition(": ")[2] not in known]


def counts(settings: Settings) -> str:
    """Return what is configured, in numbers."""
    parts = {"source": settings.sources, "route": settings.routes, "model": settings.models}
    return ", ".join(f"{len(items)} {word}{'' if len(items) == 1 else 's'}" for word, items in parts.items())


def warnings(settings: Settings, source: Document) -> Iterator[str]:
    """Yield what is allowed and probably not meant.

    Args:
        settings: what was made of the file.
        source: the file, with its line numbers.
    """
    sections = {name: getattr(type(getattr(settings, name)), "model_fields", ()) for name in Settings.model_fields}
    secrets = {secret.name for _, secret in references(settings)}
    for variable, meant in near_misses(sections, environment()):
        if variable not in secrets:
            yield f"environment {variable} is not read here; the setting is {meant}"
    for name, one in settings.sources.items():
        claimed = one.ce_source or name
        if not any(fnmatchcase(claimed, pattern) for route in settings.routes for pattern in route.match.source):
            yield f"sources.{name}: no route takes events of {claimed!r}; each would be a dead letter (no_route)"
    if settings.kafka.oauth is not None and settings.kafka.oauth.token_url.startswith("http:"):
        yield "kafka.oauth.token_url: the client's secret goes there in the clear; https outside of a test"
    yield from _odd_sessions(settings)
    yield from _odd_routes(settings)
    yield from _covered_routes(settings, source)
    yield from _rootless(settings, source)
    used = {route.model for route in settings.routes}
    for alias in settings.models.keys() - used:
        yield f"models.{alias}: no route uses it"

    for name, door in settings.egress.items():
        if isinstance(door, CallbackSection) and door.allow_networks:
            networks = ", ".join(str(network) for network in door.allow_networks)
            yield f"egress.{name}.allow_networks: {networks} may be dialled although internal; for own receivers only"


def _odd_sessions(settings: Settings) -> Iterator[str]:
    least_s, most_s = (limit_ms / 1000 for limit_ms in SESSION_LIMITS_MS.values())
    names = ", ".join(SESSION_LIMITS_MS)
    for section in ("worker", "egress_process"):
        session_s = getattr(settings, section).session_timeout_s
        if not (settings.kafka.embedded or least_s <= session_s <= most_s):
            limits = f"brokers allow {least_s:g} to {most_s:g} unless their settings were changed ({names})"
            yield f"{section}.session_timeout_s: is {session_s:g}; {limits}"


def _odd_routes(settings: Settings) -> Iterator[str]:
    for index, route in enumerate(settings.routes):
        if "{{" in _text(route.prompt.system or None, route.prompt.system_file):
            yield f"routes[{index}].prompt.system: is sent as it stands; only user is a template"
        for pattern in route.match.source:
            if meant := _meant(pattern, settings):
                yield f"routes[{index}].match.source: no source sends as {pattern!r}; did you mean {meant!r}?"


def _covered_routes(settings: Settings, source: Document) -> Iterator[str]:
    """Yield routes that no event reaches, since a single one before them takes whatever they match."""
    for index, route in enumerate(settings.routes):
        before = (at for at in range(index) if _takes_all_of(settings.routes[at].match, route.match))
        if (first := next(before, None)) is not None:
            line, its_line = (source.line_of(("routes", at, "match")) for at in (index, first))
            yield (
                f"{source.name}:{line}: routes[{index}].match: {route.name} is never used: routes[{first}] "
                f"({settings.routes[first].name}, line {its_line}) stands before it and takes all that it matches"
            )


def _takes_all_of(wide: Match, narrow: Match) -> bool:
    pairs = ((wide.source, narrow.source), (wide.type, narrow.type))
    return all(any(_covers(one, pattern) for one in ours) for ours, theirs in pairs for pattern in theirs)


def _covers(wide: str, narrow: str) -> bool:
    """Tell whether one pattern certainly matches all that another does; some that do are not seen."""
    if wide in {"*", narrow}:
        return True
    # A literal, or what is one to `*`: the other's `*` and `?` stand for something there. To `?` and `[` they do not.
    is_plain = not set("*?[") & set(narrow) or not ("[" in narrow or set("?[") & set(wide))
    return is_plain and fnmatchcase(narrow, wide)


def _rootless(settings: Settings, source: Document) -> Iterator[str]:
    for name, one in settings.providers.items():
        if isinstance(one, OpenAIProvider) and not urlsplit(one.base_url).path.strip("/"):
            text = f"providers.{name}.base_url: has no path; most servers answer under /v1, few without it"
            yield str(located(Unusable([(("providers", name, "base_url"), text)]), source.name))


def _meant(pattern: str, settings: Settings) -> str | None:
    """Return the source that a route probably means with one that nobody sends as; `batch submit` takes any name."""
    names = [one.ce_source or name for name, one in settings.sources.items()]
    names += [door.ce_source or name for name, door in settings.ingress.items()]
    names += [one.source for one in settings.batch_jobs.inputs]
    claims = [glob for key in settings.gateway.api_keys for glob in key.sources or (key.id, f"{key.id}/*")]
    may_come = any(fnmatchcase(name, pattern) for name in names) or any(fnmatchcase(pattern, glob) for glob in claims)
    return None if may_come else next(iter(get_close_matches(pattern, [*names, *claims], n=1, cutoff=0.75)), None)


def _of_fields(settings: Settings, source: Document) -> Iterator[str]:
    """Yield templates of fields that would be refused at every start."""
    for section in ("sources", "ingress"):
        for name, one in getattr(settings, section).items():
            for field, make in _FIELDS.items():
                try:
                    if (template := getattr(one, field)) is not None:
                        make(template, f"{section}.{name}.{field}")
                except ConfigError as error:
                    yield f"{source.name}:{source.line_of((section, name, field))}: {error}"


def _internal_callbacks(settings: Settings, source: Document) -> Iterator[str]:
    """Yield callbacks to literal addresses that would be refused at every start."""
    for name, door in settings.egress.items():
        if isinstance(door, CallbackDoor) and (target := read_url(door.url)).is_literal:
            reason = AddressPolicy(door.allow_networks, door.refuse_networks).refusal(target.host)
            if reason is not None:
                where = f"{source.name}:{source.line_of(('egress', name, 'url'))}"
                yield f"{where}: egress.{name}.url: {target.host} must not be dialled ({reason})"


def _text(inline: str | None, file: Path | None) -> str:
    if inline is not None:
        return inline
    try:
        return file.read_text(encoding="utf-8", errors="replace") if file is not None else ""
    except OSError:
        return ""


def _unreadable(file: Path) -> str | None:
    """Return why a worker could not read a file of a prompt."""
    try:
        file.read_text(encoding="utf-8")
    except OSError as error:
        return error.strerror
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return None


def _of_route(index: int, route: RouteSettings, source: Document) -> Iterator[str]:
    prompt, setting = route.prompt, f"routes[{index}].prompt.user"
    for name, file in (("system_file", prompt.system_file), ("user_file", prompt.user_file)):
        if file is not None and (reason := _unreadable(file)):
            at = source.line_of(("routes", index, "prompt", name))
            yield f"{source.name}:{at}: routes[{index}].prompt.{name}: {file} cannot be read: {reason}"
    trouble = _template_trouble(_text(prompt.user, prompt.user_file))
    if trouble is not None:
        line, what = trouble
        if prompt.user_file is not None:
            yield f"{prompt.user_file}:{line}: {setting}: {what}"
        else:
            at = source.line_of(("routes", index, "prompt", "user"))
            yield f"{source.name}:{at}: {setting}: {what} (line {line} of the template)"
    yield from _schema_trouble(index, route, source)


def _template_trouble(text: str) -> tuple[int, str] | None:
    try:
        parsed = _TEMPLATES.parse(text)
        unknown = sorted(meta.find_undeclared_variables(parsed) - VARIABLES)
        others = list(meta.find_referenced_templates(parsed))
        _TEMPLATES.compile(text)
    except TemplateSyntaxError as error:
        return error.lineno, f"not a valid template: {error.message}"
    except (SyntaxError, ValueError, RecursionError) as error:
        # What Jinja lets pass and Python does not, such as two parameters of one name.
        return 1, f"not a valid template: {getattr(error, 'msg', error)}"
    if others:
        line = next((number for number, row in enumerate(text.splitlines(), 1) if _TAKES_IN.search(row)), 1)
        return line, "no other template can be taken in"
    if not unknown:
        return None
    line = next((number for number, row in enumerate(text.splitlines(), 1) if unknown[0] in row), 1)
    return line, f"unknown variable {unknown[0]!r}; there are: {', '.join(sorted(VARIABLES))}"


def _schema_trouble(index: int, route: RouteSettings, source: Document) -> Iterator[str]:
    setting = f"routes[{index}].output_schema"
    where, schema = f"{source.name}:{source.line_of(('routes', index, 'output_schema'))}", route.output_schema
    if route.output_schema_file is not None:
        where, setting = str(route.output_schema_file), f"{setting}_file"
        try:
            schema = decode_any_json(route.output_schema_file.read_bytes())
        except (OSError, Undecodable) as error:
            reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else error
            yield f"{where}: {setting}: {reason}"
            return
    if schema is None:
        return
    try:
        jsonschema_rs.Draft202012Validator(schema, offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        yield f"{where}: {setting}: not a valid JSON Schema (2020-12): {str(error).splitlines()[0]}"


def _read_by(settings: Settings, program: str) -> list[SettingPath]:
    """Return the places below which a program reads every secret at its start."""
    asks_kafka = program != "lambda" or settings.lambda_door.target == "kafka"
    return [*settings.secret_places(program), *(settings.kafka.secret_places if asks_kafka else [])]


def _unresolved(settings: Settings, source: Document, programs: Collection[str] | None) -> Iterator[str]:
    reading = SecretStore(settings.secrets_manager).reading()
    places: list[SettingPath] = [()] if programs is None else [p for name in programs for p in _read_by(settings, name)]
    missing = set()
    for path, secret in references(settings):
        if not any(path[: len(place)] == place for place in places):
            continue
        try:
            reading.values(secret)
        except ConfigError as error:
            missing.add(path)
            dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
            yield f"{source.name}:{source.line_of(path)}: {dotted}: {error}"
    for place, text in _unusable(settings, reading, missing, programs):
        yield f"{source.name}:{source.line_of(place)}: {text}"


def _unusable(
    settings: Settings, reading: Secrets, missing: Collection[SettingPath], programs: Collection[str] | None
) -> Iterator[Problem]:
    """Yield what is there, and is too short or cannot be decoded."""
    if programs is None or "gateway" in programs:
        yield from sender_problems(settings, reading, missing)
        if settings.gateway.ticket_secret is not None and not any(path[0] == "gateway" for path in missing):
            try:
                Tickets(settings.gateway.ticket_secret, settings.gateway.former_ticket_secrets)
            except ConfigError as error:
                yield ("gateway", "ticket_secret"), str(error)
    elif "lambda" in programs:
        gateway = settings.gateway.model_copy(update={"api_keys": ()})
        yield from sender_problems(settings.model_copy(update={"gateway": gateway}), reading, missing)
