"""Writes the configuration in effect as YAML that says which values the environment has overridden."""

from collections.abc import Mapping

import yaml

from contracts.settings import Settings, environment, parse
from contracts.settings.environ import overrides
from contracts.settings.marks import Document, Path


def effective_yaml(settings: Settings, environ: Mapping[str, str] | None = None) -> str:
    """Return the whole configuration, defaults included; unset optional values are left out."""
    plain = settings.model_dump(mode="json", exclude_none=True)
    lines = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110).splitlines()
    # Only its lines count. A file whose name is not UTF-8 is there with escapes that no file of settings may have.
    written = parse("\n".join(lines).replace(r"\uDC", r"\uFF"), "effective configuration")
    for names, (variable, _) in overrides(environment() if environ is None else environ).items():
        line = written.lines.get(_path(written, names))
        if line is not None:
            lines[line - 1] += f"  # from {variable}"
    return "\n".join(lines) + "\n"


def _path(written: Document, names: tuple[str, ...]) -> Path:
    """Turn the words of a variable's name into a path of the document: numbers are places in lists."""
    path: list[str | int] = []
    target = written.data
    for name in names:
        step: str | int = int(name) if isinstance(target, list) and name.isdigit() else name
        path.append(step)
        inside = isinstance(target, dict) and step in target
        listed = isinstance(target, list) and isinstance(step, int) and step < len(target)
        target = target[step] if inside or listed else None
    return tuple(path)
