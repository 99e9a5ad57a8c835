"""The Salesforce example runs as its page says, and its summary is there, valid, over HTTP."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.docs.pages import SALESFORCE, Block, blocks
from tests.docs.playground import Playground
from tests.examples.salesforce import schema
from tests.support import eventually

pytestmark = pytest.mark.e2e
SHELL = blocks(SALESFORCE, "sh")
SEND = "export PENSTOCK_SECRET_SALESFORCE={}; examples/salesforce-opportunity-summary/send-sample.sh"
SECRET = "example-only-secret-change-me-0123456789"
needs_tools = pytest.mark.skipif(
    shutil.which("curl") is None or shutil.which("openssl") is None, reason="curl or openssl is not installed"
)


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Start what the page starts in its first terminal."""
    folder: Path = tmp_path_factory.mktemp("salesforce")
    (background,) = [block for block in SHELL if block.how == "background"]
    with Playground(folder, background) as running:
        yield running


@needs_tools
@pytest.mark.parametrize("block", [block for block in SHELL if block.how.startswith("run")], ids=str)
def test_a_block_of_the_page_runs(playground: Playground, block: Block) -> None:
    absent = [program for program in block.needs if shutil.which(program) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed")

    done = playground.run(block.text)

    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@needs_tools
def test_the_sample_gets_a_summary_that_fits_the_schema(playground: Playground) -> None:
    sent = playground.run(f"{SEND.format(SECRET)} {playground.url}")

    receipt = json.loads(sent.stdout)
    asked = f"curl --silent '{playground.url}{receipt['status_url']}'"
    found = eventually(lambda: _finished(playground, asked), 30.0)
    assert found["status"] == "succeeded"
    assert found["result"]["provenance"]["model"] == "embedded/extract-v1"
    jsonschema_rs.validator_for(schema()).validate(found["result"]["output"])


def _finished(playground: Playground, asked: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(playground.run(asked).stdout)
    return {} if found["status"] == "pending" else found


@needs_tools
def test_a_sample_signed_with_another_secret_is_refused(playground: Playground) -> None:
    sent = playground.run(f"{SEND.format('another-secret-0123456789')} {playground.url}")

    assert sent.returncode != 0
    assert json.loads(sent.stdout)["status"] == 401
