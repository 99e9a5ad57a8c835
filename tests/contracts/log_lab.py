"""Configures the logs for a test, and puts everything back."""

import contextlib
import logging
from collections.abc import Iterator

from contracts import logs
from contracts.settings import LogSettings


@contextlib.contextmanager
def configured() -> Iterator[None]:
    """Write lines of JSON to what standard error is now."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    logs.configure(LogSettings(format="json"))
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
