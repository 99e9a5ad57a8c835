"""docker-compose.yml as data, with `${NAME:-default}` filled in as compose would.

Reads: docker-compose.yml, .env.example.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")


def stack(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the compose file.

    Args:
        environ: variables that replace defaults.
    """
    values = environ or {}
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    filled = _VARIABLE.sub(lambda match: values.get(match["name"], match["default"]), text)
    document: dict[str, Any] = yaml.safe_load(filled)
    return document


def services() -> dict[str, dict[str, Any]]:
    """Return the services by name."""
    found: dict[str, dict[str, Any]] = stack()["services"]
    return found


def example_environment() -> dict[str, str]:
    """Return the variables that .env.example sets."""
    return variables(ROOT / ".env.example")


def variables(file: Path) -> dict[str, str]:
    """Return the variables that an environment file sets."""
    lines = file.read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
