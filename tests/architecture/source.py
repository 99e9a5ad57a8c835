"""Finds and parses the files that the rules of this folder are about."""

import ast
import subprocess
from functools import cache
from pathlib import Path

from tests.support import ROOT

PRODUCT_PACKAGES = ("contracts", "producers", "streams", "gateways")
CODE_PACKAGES = (*PRODUCT_PACKAGES, "tests", "bench")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def python_files(packages: tuple[str, ...]) -> list[Path]:
    """Return the Python files of some top-level packages."""
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def functions(path: Path) -> list[FunctionNode]:
    """Return all functions and methods of a file."""
    return [node for node in ast.walk(parsed(path)) if isinstance(node, FunctionNode)]


def relative(path: Path) -> str:
    """Return the path as a person names it."""
    return path.relative_to(ROOT).as_posix()


def project_files() -> list[Path]:
    """Return the files that belong to the project: tracked ones and new ones that are not ignored.

    Without git (a source archive) these are all files outside of hidden and build folders.
    """
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        paths = [ROOT / name for name in run.stdout.split("\0") if name]
    else:
        skipped = {"build", "dist", "__pycache__"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(part in skipped or part.startswith(".venv") for part in path.relative_to(ROOT).parts)
        ]
    return sorted(path for path in paths if path.is_file())
