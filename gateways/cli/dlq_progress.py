"""Says how far a long command has come: a bar on a terminal, a quiet line every few seconds elsewhere; on stderr."""

import time
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_INTERVAL_S = 5.0


class Told:
    """Progress of one stage; a context manager.

    Args:
        what: present participle and noun, such as `reading records`.
        total: how many there are.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._next_line_s = time.monotonic() + _LINE_INTERVAL_S
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._bar = self._progress.add_task(what, total=total) if self._progress else None

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def advance(self, count: int = 1) -> None:
        """Take note of so many more."""
        self._done += count
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=self._done)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + _LINE_INTERVAL_S
            click.echo(f"{self._what}: {self._done} of {self._total}", err=True)
