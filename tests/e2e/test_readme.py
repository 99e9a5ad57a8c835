"""The README's commands work as they stand there: each block runs beside the `penstock up` that the page starts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import README, Block, blocks
from tests.docs.playground import Playground, runnable

SHELL = blocks(README, "sh")


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """Start what the page starts in its first terminal."""
    folder: Path = tmp_path_factory.mktemp("readme")
    (background,) = [block for block in SHELL if block.how == "background"]
    with Playground(folder, background) as running:
        yield running


@pytest.mark.parametrize("block", [block for block in SHELL if block.how == "make"], ids=str)
def test_a_make_target_of_the_readme_exists(playground: Playground, block: Block) -> None:
    looked_up = playground.run(runnable(block))

    assert looked_up.returncode == 0, looked_up.stderr


@pytest.mark.parametrize("block", [block for block in SHELL if block.how.startswith("run")], ids=str)
def test_a_block_of_the_readme_runs(playground: Playground, block: Block) -> None:
    absent = [program for program in block.needs if shutil.which(program) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} is not installed")

    done = playground.run(runnable(block))

    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
