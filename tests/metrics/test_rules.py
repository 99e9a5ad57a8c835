"""Every alert can be read, acted on, and is proven to fire; promtool agrees with the files."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, TextIO

import pytest
import yaml

from tests.metrics.promql import PROMETHEUS, alerts
from tests.support import ROOT

pytestmark = pytest.mark.process

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
ALERTS = sorted(alerts())


def promtool(*args: str | Path, stdin: TextIO | None = None) -> "subprocess.CompletedProcess[str]":
    """Run promtool, with both streams in `stdout`."""
    command = [str(PROMTOOL), *(str(arg) for arg in args)]
    return subprocess.run(
        command, check=False, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _anchors() -> set[str]:
    headings = re.findall(r"^#+\s+(.+)$", (ROOT / "docs/runbook.md").read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_it_means_and_names_its_place_in_the_runbook(name: str) -> None:
    annotations = alerts()[name]["annotations"]
    page, _, anchor = annotations["runbook"].partition("#")

    assert annotations["summary"]
    assert annotations["description"]
    assert page == "docs/runbook.md"
    assert anchor == name.lower()
    assert anchor in _anchors()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is(name: str) -> None:
    assert alerts()[name]["labels"]["severity"] in {"critical", "warning", "info"}


def _proven(case: dict[str, Any]) -> set[str]:
    return {check["alertname"] for check in case["alert_rule_test"] if check.get("exp_alerts")}


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    documents = [yaml.safe_load(file.read_text("utf-8")) for file in (PROMETHEUS / "tests").glob("*.yml")]
    proven = set().union(*(_proven(case) for document in documents for case in document["tests"]))

    assert sorted(set(ALERTS) - proven) == []


@needs_promtool
def test_promtool_accepts_the_configuration_and_all_rules() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")

    assert checked.returncode == 0, checked.stdout
    assert "FAILED" not in checked.stdout


@needs_promtool
@pytest.mark.parametrize("file", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda file: file.stem)
def test_promtool_finds_the_alerts_firing_as_their_tests_say(file: Path) -> None:
    tested = promtool("test", "rules", file)

    assert tested.returncode == 0, tested.stdout
