"""Small configurations for tests of the command line."""

from pathlib import Path

SMALL = """\
version: 1
sources:
  github:
    scheme: github
    secrets: [{id: current, value: "env:PENSTOCK_SECRET_GITHUB"}]
    type: com.github.{header:x-github-event}
providers:
  local: {kind: embedded}
models:
  default: {provider: local, model: embedded/extract-v1}
routes:
  - name: triage
    prompt:
      system: Triage.
      user: "{{ data }}"
    output_schema: {type: object}
    model: default
"""


def write(folder: Path, text: str = SMALL) -> Path:
    """Write a configuration and return its file."""
    file = folder / "penstock.yaml"
    file.write_text(text, encoding="utf-8")
    return file
