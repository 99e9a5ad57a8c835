"""AsyncAPI's own parser accepts the document: the committed one, and one of a configuration that uses everything."""

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateways.asyncapi.document import asyncapi
from gateways.cli.config import as_yaml
from tests.gateways.asyncapi.settings import rich
from tests.support import ROOT

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]
SOURCE = ROOT / "tests/gateways/asyncapi/validator"
INSTALLED = ROOT / "build/asyncapi-validator"
COMMITTED = ROOT / "docs/reference/asyncapi.yaml"


@pytest.fixture(scope="module")
def parser() -> Path:
    """Install the parser as its lock file says, once per lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not installed")
    lock, installed = SOURCE / "package-lock.json", INSTALLED / "installed.json"
    INSTALLED.parent.mkdir(exist_ok=True)
    # Two test processes may ask at the same time; the second waits and finds it installed.
    with (INSTALLED.parent / f"{INSTALLED.name}.lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _install(lock, installed)
    return INSTALLED / "validate.js"


def _install(lock: Path, installed: Path) -> None:
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        shutil.rmtree(INSTALLED, ignore_errors=True)
        shutil.copytree(SOURCE, INSTALLED)
        command = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        done = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, check=False, timeout=150)
        if done.returncode != 0 and "CI" not in os.environ:
            pytest.skip(f"npm cannot install the parser: {done.stderr.strip().splitlines()[-1:]}")
        assert done.returncode == 0, done.stderr
        shutil.copy(lock, installed)


def parse(parser: Path, text: str) -> dict[str, Any]:
    """Return what the parser says."""
    command = ("node", str(parser))
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_committed_document_is_valid(parser: Path) -> None:
    found = parse(parser, COMMITTED.read_text("utf-8"))

    assert found["errors"] == []
    assert "penstock.results.v1" in found["channels"]


def test_the_document_of_a_rich_configuration_is_valid(parser: Path, tmp_path: Path) -> None:
    found = parse(parser, as_yaml(asyncapi(rich(tmp_path))))

    assert found["errors"] == []
    assert "acme.triage.v1" in found["channels"]


def test_a_reference_to_nowhere_is_an_error(parser: Path) -> None:
    broken = yaml.safe_load(COMMITTED.read_text("utf-8"))
    del broken["components"]["schemas"]["OutcomeMarker"]

    assert any("OutcomeMarker" in error for error in parse(parser, yaml.safe_dump(broken))["errors"])
