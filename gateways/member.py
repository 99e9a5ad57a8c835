"""One of several gateway processes on one machine: what it gets from its supervisor, and what it tells it.

See: docs/adr/0023-several-processes.md.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from contracts.errors import ConfigError
from contracts.settings import Settings

_FIELDS = 5


class Member(NamedTuple):
    """A process's place among the others.

    Attributes:
        number: 0 to the number of processes - 1; a process that is started again keeps it.
        listener_fd: the socket that all of them accept from.
        life_fd: read end of a pipe that nobody writes to; its end is the end of the supervisor.
        ready_fd: write end of a pipe; a byte says that this process serves.
        starts: how often the process of this number has been started before.
    """

    number: int
    listener_fd: int
    life_fd: int
    ready_fd: int
    starts: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the option that the supervisor gives.

        Raises:
            ConfigError: it is none.
        """
        parts = text.split(":")
        if len(parts) != _FIELDS or not all(part.isascii() and part.isdecimal() for part in parts):
            message = "--member is for the supervisor of --processes"
            raise ConfigError(message)
        return cls(*map(int, parts))

    @property
    def option(self) -> str:
        """Return what `parse` reads."""
        return ":".join(map(str, self))

    def listener(self) -> socket.socket:
        """Return the shared socket; it listens already."""
        return socket.socket(fileno=self.listener_fd)

    def announce(self) -> None:
        """Say that this process serves."""
        with contextlib.suppress(OSError):
            os.write(self.ready_fd, b".")
        os.close(self.ready_fd)

    def follow_supervisor(self, on_gone: Callable[[], None]) -> None:
        """Call back when the supervisor has ended, however it did: nobody would start or stop this process any more."""
        loop = asyncio.get_running_loop()

        def gone() -> None:
            loop.remove_reader(self.life_fd)
            on_gone()

        loop.add_reader(self.life_fd, gone)

    def settings(self, settings: Settings) -> Settings:
        """Return the settings of this process: a file that is for one process alone has its number in its name."""
        view = settings.gateway.results_view
        if view.path is None or self.number == 0:
            # The first keeps the name, so that an index made by a single process goes on.
            return settings
        path = view.path.with_name(f"{view.path.stem}-{self.number}{view.path.suffix}")
        gateway = settings.gateway.model_copy(update={"results_view": view.model_copy(update={"path": path})})
        return settings.model_copy(update={"gateway": gateway})


def share_metrics(number: int) -> None:
    """Let the metrics of this process go into its files; call it before any metric is made.

    The files are named after the number instead of the process id: a process that is started again goes on counting
    where the last one ended, and a process that ends again and again leaves no file more.
    Source: prometheus_client 0.26, prometheus_client/values.py.
    """
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class Refusals:
    """Refused changes, for the log: each process refuses a change by itself, and one of them says why.

    That one holds a lock on a file named after the reason until it meets another one, its configuration is good, or it
    ends, however it does; after that, whichever of the others meets the reason says it.

    Args:
        folder: shared by all of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = contextlib.ExitStack()

    def is_ours_to_say(self, reason: str) -> bool:
        """Tell whether this process is the one that logs the reason. Blocking: some microseconds."""
        self.forget()
        # A reason may have lines; and it is nothing to leave in a folder.
        digest = hashlib.sha256(reason.encode()).hexdigest()
        try:
            file = self._held.enter_context((self._folder / f"refused-{digest}").open("wb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # Said twice is better than not at all.
            return True
        return True

    def forget(self) -> None:
        """Let go of what this process has said: its configuration is good, and the next refusal is a new one."""
        self._held.close()
