"""Finds processes by a mark in their environment: children inherit it, whatever they do to their names and groups."""

import os
import uuid
from pathlib import Path

VARIABLE = "PENSTOCK_TEST_MARK"


def new_mark() -> str:
    """Return a mark that no other process has."""
    return uuid.uuid4().hex


def pids_with(mark: str) -> set[int]:
    """Return the living processes that carry the mark, zombies left out."""
    wanted = f"{VARIABLE}={mark}".encode()
    return {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _carries(entry, wanted)}


def _carries(process: Path, wanted: bytes) -> bool:
    if int(process.name) == os.getpid():
        return False
    try:
        # A zombie's environment is empty.
        return wanted in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
