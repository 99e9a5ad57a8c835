"""The Lambda example: its page runs, and its image and template name what is there."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import load
from tests.docs.pages import LAMBDA, blocks
from tests.support import ROOT

FOLDER = ROOT / "examples/lambda"


class _Template(yaml.SafeLoader):
    """YAML with CloudFormation's short functions, which are not looked into."""


_Template.add_multi_constructor("!", lambda _loader, _tag, node: node.value)


def template() -> Any:
    return yaml.load((FOLDER / "template.yaml").read_text("utf-8"), Loader=_Template)  # noqa: S506 - a safe loader


@pytest.mark.embedded
def test_the_page_runs_and_shows_what_it_says(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(LAMBDA, "sh") if block.how == "run"]
    for entry in ROOT.iterdir():
        if entry.name not in {"build", ".venv", ".git"}:
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    run = subprocess.run(
        ("sh", "-e", "-c", block.text), cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )

    assert run.returncode == 0, run.stderr[-2000:]
    assert re.findall(r"^(\S+) +(signed|forged) +(.*)$", run.stdout, re.MULTILINE) == [
        ("rest-api-v1", "signed", '202 {"status":"accepted"}'),
        ("http-api-v2", "signed", '202 {"status":"accepted"}'),
        ("function-url", "signed", '202 {"status":"accepted"}'),
        ("rest-api-v1", "forged", "401 Unauthorized"),
        ("http-api-v2", "forged", "401 Unauthorized"),
    ]
    assert sorted(re.findall(r"^on the log: (\S+) com\.github\.issues key acme/shop$", run.stdout, re.MULTILINE)) == [
        "delivery-function-url",
        "delivery-http-api-v2",
        "delivery-rest-api-v1",
    ]


def test_the_environment_of_the_template_makes_a_valid_configuration() -> None:
    variables = template()["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    queue = {"PENSTOCK_LAMBDA_DOOR__QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/accepted"}

    settings = load(FOLDER / "penstock.yaml", {**{name: str(text) for name, text in variables.items()}, **queue})

    assert settings.lambda_door.target == "sqs"
    references = {secret.value.reference for source in settings.sources.values() for secret in source.secrets}
    assert references == {"env:PENSTOCK_SECRET_GITHUB"}
    assert "PENSTOCK_SECRET_GITHUB" in variables


def test_the_image_names_a_handler_and_folders_that_are_there() -> None:
    text = (FOLDER / "Dockerfile").read_text("utf-8")
    module, _, name = re.findall(r'^CMD \["(.+)"\]$', text, re.MULTILINE)[0].rpartition(".")

    assert callable(getattr(importlib.import_module(module), name))
    assert all((ROOT / source).exists() for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE))


def test_the_function_answers_before_api_gateway_gives_up() -> None:
    function = template()["Resources"]["Function"]["Properties"]

    assert load(FOLDER / "penstock.yaml", {}).lambda_door.timeout_s < function["Timeout"] < 29
    assert function["Events"]["Webhook"]["Properties"]["Path"] == "/webhooks/{source}"
