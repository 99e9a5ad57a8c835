"""The process environment; the one place that reads it."""

import os
from collections.abc import Mapping

PREFIX = "PENSTOCK_"


def environment() -> Mapping[str, str]:
    """Return the environment of this process, live."""
    return os.environ


def adopt(variables: Mapping[str, str]) -> None:
    """Set variables that are not set yet: a running `penstock up` lends its environment to other commands."""
    for name, text in variables.items():
        os.environ.setdefault(name, text)


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
