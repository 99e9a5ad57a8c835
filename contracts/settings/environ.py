"""The process environment; the one place that reads it."""

import os
from collections.abc import Iterable, Iterator, Mapping

PREFIX = "PENSTOCK_"


def environment() -> Mapping[str, str]:
    """Return the environment of this process, live."""
    return os.environ


def adopt(variables: Mapping[str, str]) -> None:
    """Set variables that are not set yet: a running `penstock up` lends its environment to other commands."""
    for name, text in variables.items():
        os.environ.setdefault(name, text)


def near_misses(sections: Mapping[str, Iterable[str]], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield variables that are no settings for the want of an underscore, and what they would have to be called.

    Args:
        sections: names of their fields by name.
        environ: of the process.
    """
    for section, fields in sections.items():
        for field in fields:
            meant = f"{PREFIX}{section.upper()}_{field.upper()}"
            if meant in environ:
                yield meant, f"{PREFIX}{section.upper()}__{field.upper()}"


def overrides(environ: Mapping[str, str]) -> dict[tuple[str, ...], tuple[str, str]]:
    """Return the settings that the environment overrides: path in the file -> (variable, raw text).

    `PENSTOCK_KAFKA__BOOTSTRAP_SERVERS` overrides `kafka.bootstrap_servers`. Names without a double underscore
    (`PENSTOCK_CONFIG`, test switches) are not settings.
    """
    found = {}
    for variable, text in environ.items():
        if variable.startswith(PREFIX) and "__" in variable:
            path = tuple(part.lower() for part in variable[len(PREFIX) :].split("__"))
            found[path] = (variable, text)
    return found
