"""What runs when: nothing twice in CI, and nothing left out elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checks, groups
from tests.support import ROOT


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Give the pytest commands that are started, none of which runs; the run that this test is of keeps its files."""
    started: list[tuple[str, ...]] = []

    def run(command: tuple[str, ...], **_: object) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("tests.groups.subprocess.run", run)
    monkeypatch.setattr(groups, "ROOT", tmp_path)
    monkeypatch.setattr(groups, "_PLACES", tmp_path / "places.json")
    return started


@pytest.mark.parametrize(("checked", "times"), [("", 0), ("yes", 1)])
def test_the_rules_of_the_house_are_left_to_the_checks_where_these_have_run(
    checked: str, times: int, commands: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(groups.CHECKED, checked)

    groups.main(["offline", "process"])

    assert [command.count("--deselect=tests/architecture/") for command in commands] == [times, 0]
    assert checks.CHECKS["architecture"][-1] == "tests/architecture"


@pytest.mark.process
def test_the_other_groups_learn_where_their_tests_are_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "places.json"
    command = (sys.executable, "-m", "pytest", "-q", "--collect-only", f"--where-file={file}", "tests/architecture")
    run = subprocess.run(
        (*command, "--deselect=tests/architecture/"), cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert run.returncode == groups.NO_TESTS_COLLECTED, run.stdout
    assert json.loads(file.read_text()) == {"process": ["tests/architecture/test_imports.py"]}
