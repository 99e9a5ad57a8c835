"""A figures file says which code was measured."""

import subprocess
from pathlib import Path

from bench.figures import commit_of


def git(folder: Path, *command: str) -> str:
    known = ("git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@localhost", *command)
    return subprocess.run(known, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_measured_tree_and_says_when_the_tree_differs_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("one")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "figures.json").write_text("one")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    commit = git(tmp_path, "rev-parse", "--short=7", "HEAD")

    assert commit_of(tmp_path) == commit
    # Figures that are kept between two runs change no code.
    (tmp_path / "docs" / "figures.json").write_text("two")
    assert commit_of(tmp_path) == commit
    (tmp_path / "code.py").write_text("two")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def test_a_tree_without_a_history_is_unknown(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
