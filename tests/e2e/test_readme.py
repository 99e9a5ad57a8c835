"""The README's commands work: every block fenced as `sh` runs, in order, in the project's root.

Blocks that a reader has to adapt, or that do not end by themselves, are fenced as `console` or `text`.
"""

import re
import subprocess

import pytest

from tests.support import ROOT

BLOCK_LIMIT_S = 300.0
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# These contain this very test; that the target exists is enough.
RECURSIVE = frozenset({"make test", "make test-e2e"})


def _commands() -> list[str]:
    readme = ROOT / "README.md"
    return _BLOCK.findall(readme.read_text("utf-8")) if readme.exists() else []


def _runnable(block: str) -> str:
    lines = [line.partition("  #")[0].rstrip() for line in block.splitlines()]
    return "\n".join(f"make -n {line.removeprefix('make ')}" if line in RECURSIVE else line for line in lines)


def test_the_readme_has_commands() -> None:
    assert _commands()


@pytest.mark.timeout(BLOCK_LIMIT_S + 10)
@pytest.mark.parametrize("block", _commands())
def test_a_block_of_the_readme_runs(block: str) -> None:
    script = ("sh", "-e", "-c", _runnable(block))
    run = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=False, timeout=BLOCK_LIMIT_S)

    assert run.returncode == 0, f"{block}\n{run.stdout[-2000:]}\n{run.stderr[-2000:]}"
