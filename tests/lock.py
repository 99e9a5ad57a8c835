"""Resolves the dependencies of pyproject.toml anew and writes the lock files, with hashes and for every platform.

Writes: requirements.lock (development), requirements-runtime.lock (the image), deploy/image/build.lock (its builder).
"""

import subprocess
import sys

from tests.support import ROOT

# `--no-emit-*` and no header: a lock says what, not where this machine got it from.
OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade", "--quiet"),
    *("--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"),
)


def main() -> int:
    """Write the three files; the two of the image take their versions from the first."""
    _compile("pyproject.toml", "requirements.lock", "--extra", "dev")
    # The image has every door, so it has the extras of the doors.
    extras = ("--extra", "parquet", "--extra", "salesforce")
    _compile("pyproject.toml", "requirements-runtime.lock", *extras, "--constraint", "requirements.lock")
    _compile("-", "deploy/image/build.lock", "--constraint", "requirements.lock", stdin="hatchling")
    return 0


def _compile(source: str, target: str, *options: str, stdin: str | None = None) -> None:
    command = (f"{sys.prefix}/bin/uv", "pip", "compile", source, "--output-file", target, *OPTIONS, *options)
    subprocess.run(command, cwd=ROOT, check=True, text=True, input=stdin)


if __name__ == "__main__":
    sys.exit(main())
