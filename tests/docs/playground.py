"""Runs blocks of a page in a folder that looks like a checkout and is nobody else's, beside a running `penstock up`.

Blocking: `run` up to the limit it is given; entering the context until `penstock up` is ready, at most 40 s.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from tests.docs.pages import Block
from tests.support import ROOT, Leash, NotReachedError, end_group, eventually

START_LIMIT_S = 40.0
_ADDRESS = "http://127.0.0.1:8080"
_MAKE = re.compile(r"^make ", re.MULTILINE)


def runnable(block: Block) -> str:
    """Return the block's script; targets of make are only looked up, since they build, test and start everything."""
    return _MAKE.sub("make -n ", block.text)


class Playground:
    """The folder, and the program that a block marked `background` starts in it.

    Args:
        folder: empty.
        background: starts `penstock up`, in the foreground as a person's terminal would.
    """

    def __init__(self, folder: Path, background: Block) -> None:
        self._folder = folder
        self._background = background
        self._log = tempfile.NamedTemporaryFile(prefix="penstock-page-", suffix=".log")  # noqa: SIM115 - readable as long as this object lives
        self.url = ""

    def __enter__(self) -> Self:
        """Start it and wait until it serves."""
        for entry in ROOT.iterdir():
            if entry.name not in {"build", ".venv", ".git"}:
                (self._folder / entry.name).symlink_to(entry)
        (self._folder / ".venv").symlink_to(sys.prefix)
        self._process = subprocess.Popen(
            ("sh", "-e", "-c", runnable(self._background)),
            cwd=self._folder,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._leash = Leash(self._process.pid)
        try:
            self.url = eventually(self._published, START_LIMIT_S)["url"]
        except NotReachedError as error:
            self.__exit__()
            message = f"{self._background} did not start:\n{Path(self._log.name).read_text('utf-8')}"
            raise NotReachedError(message) from error
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it and everything it started."""
        end_group(self._process, 20.0)
        self._leash.release()

    def run(self, script: str, limit_s: float = 45.0) -> "subprocess.CompletedProcess[str]":
        """Run a script as a second terminal in the folder would."""
        return subprocess.run(
            ("sh", "-e", "-c", script.replace(_ADDRESS, self.url)),
            cwd=self._folder,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )

    def _published(self) -> dict[str, str]:
        text = (self._folder / "build/up.json").read_text("utf-8") if (self._folder / "build/up.json").exists() else ""
        found: dict[str, str] = json.loads(text) if text.endswith("}") else {}
        return found

    @staticmethod
    def _environ() -> dict[str, str]:
        # Any free port: 8080 may be somebody's.
        return {**os.environ, "PENSTOCK_GATEWAY__PORT": "0", "PYTHONUNBUFFERED": "1"}
