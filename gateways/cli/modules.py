"""How the command line starts a module of ours in a process of its own."""

import os
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]


def command_of(module: str, *args: str) -> tuple[str, ...]:
    """Return program and arguments that start a module of ours.

    `python -m` looks in the current folder first: one called `streams` there, of the user's own, would be started in
    place of ours. In a checkout the folder is ours, and its code goes before an installed one.
    """
    safe = () if _HOME.samefile(os.curdir) else ("-P",)
    return (sys.executable, *safe, "-m", module, *args)
