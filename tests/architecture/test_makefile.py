"""`make` alone explains every target."""

import re
import subprocess

from tests.support import ROOT


def test_every_target_has_a_line_of_help() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout

    targets = set(phony[1].replace("\\", " ").split())

    assert targets == {line.split()[0] for line in shown.splitlines()}
