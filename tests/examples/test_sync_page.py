"""The sync example runs as its page says: the quick call is answered, the slow one fetched, repeated ones are free."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import SYNC, Block, blocks
from tests.docs.playground import Playground

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
SHELL = blocks(SYNC, "sh")
KEY = "export PENSTOCK_API_KEY=example-only-key-change-me; "


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Start what the page starts in its first terminal."""
    folder: Path = tmp_path_factory.mktemp("sync")
    (background,) = [block for block in SHELL if block.how == "background"]
    with Playground(folder, background) as running:
        yield running


def invoke(playground: Playground, kind: str, key: str = "") -> tuple[list[str], dict[str, Any]]:
    """Return the statuses on the way, and the answer."""
    named = f"export IDEMPOTENCY_KEY={key}; " if key else ""
    done = playground.run(f"{KEY}{named}examples/sync/invoke.sh com.example.{kind} {playground.url}")
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.stderr.split("\n")[:-1], found


@pytest.mark.parametrize("block", [block for block in SHELL if block.how.startswith("run")], ids=str)
def test_a_block_of_the_page_runs(playground: Playground, block: Block) -> None:
    done = playground.run(block.text)

    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_slow_call_is_answered_in_time_and_its_result_fetched_afterwards(playground: Playground) -> None:
    statuses, answer = invoke(playground, "report", "slow-1")
    again, same = invoke(playground, "report", "slow-1")

    assert (statuses[0], statuses[-1]) == ("status 202", "status 200")
    assert (answer["status"], answer["result"]["attempts"]) == ("succeeded", 1)
    assert (again, same) == (["status 200"], answer)
