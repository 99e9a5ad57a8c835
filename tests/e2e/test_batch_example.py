"""The batch example, by the commands of its page."""

import json
import shlex
from pathlib import Path

import pytest

from tests.docs.pages import blocks
from tests.gateways.cli.marked import VARIABLE
from tests.support import ROOT, ChildProcess

PAGE = ROOT / "examples/batch/README.md"


@pytest.mark.long
@pytest.mark.timeout(150)
def test_the_commands_of_the_page_give_a_line_for_each_ticket(tmp_path: Path, mark: str) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    up_line, submit_line = (shlex.split(block.commands[0])[1:] for block in blocks(PAGE, "sh"))
    environ = {VARIABLE: mark, "PYTHONPATH": str(ROOT)}

    with ChildProcess("gateways.cli", *up_line, "--port", "0", cwd=tmp_path, env=environ) as up:
        up.wait_for("Ctrl-C ends everything", 60)
        for _ in range(2):
            with ChildProcess("gateways.cli", *submit_line, cwd=tmp_path, env=environ) as submit:
                assert submit.wait(60) == 0, submit.output
    output = [json.loads(line) for line in (tmp_path / "build/tickets.jsonl").read_text("utf-8").splitlines()]
    errors = [json.loads(line) for line in (tmp_path / "build/tickets.errors.jsonl").read_text("utf-8").splitlines()]
    manifest = json.loads((tmp_path / "build/tickets.manifest.json").read_text("utf-8"))

    assert [line["recordId"] for line in output] == ["T-1001", "T-1002", "T-1003", "T-1004", "T-1005"]
    assert [(line["recordId"], line["error"]["reason"]) for line in errors] == [("T-1005", "prompt_failed")]
    assert manifest["counts"]["succeeded"] == 4
    assert manifest["repeated_outcomes"] == 0
