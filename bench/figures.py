"""The figures file and table of a benchmark run.

Form: {"name", "command", "commit", "machine", "runs", "figures": [{"name", "value", "unit", "goal", "holds"}]}.
"""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path("build/figures")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        goal: as text, with its comparison; empty when the figure is only context.
        holds: None without a goal.
        is_strict: True when missing the goal fails the run: loss, order, payment; never speed.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    holds: bool | None = None
    is_strict: bool = False


def publish(name: str, command: str, runs: int, figures: list[Figure], tree: Path = Path()) -> int:
    """Print the table, write the file, and return the exit status; `tree` is the checkout that was measured."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    document = {
        "name": name,
        "command": command,
        "commit": commit_of(tree),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "runs": runs,
        "figures": [asdict(figure) for figure in figures],
    }
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    table = Table(title=f"{name}, {runs} runs, medians", title_justify="left")
    for column in ("figure", "value", "unit", "goal", "holds"):
        table.add_column(column)
    for figure in figures:
        verdict = {None: "", True: "yes", False: "NO"}[figure.holds]
        table.add_row(figure.name, f"{figure.value:g}", figure.unit, figure.goal, verdict)
    Console().print(table)
    Console().print(f"written to {path}")
    return int(any(figure.is_strict and figure.holds is False for figure in figures))


def commit_of(tree: Path) -> str:
    """Return the commit of a checkout, with `-dirty` where its files differ from it; kept figures are no code."""
    changed = _git(tree, "status", "--porcelain", "--untracked-files=no", ":/", ":(top,exclude)docs")
    return (_git(tree, "rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _git(tree: Path, *command: str) -> str:
    return subprocess.run(("git", "-C", tree, *command), capture_output=True, text=True, check=False).stdout.strip()
