"""The embedded broker as a process: serves until a signal or the end of its parent; `EmbeddedBroker` starts one.

Blocking: `serve` until told to end; `EmbeddedBroker.start` until the address is known, at most 15 s.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Self

from contracts.errors import LogUnavailable
from contracts.signals import StopSignals
from producers.mock_cluster import LIMITS, MockCluster

_POLL_INTERVAL_S = 0.25
_START_LIMIT_S = 15.0
_STOP_LIMIT_S = 5.0
_ADDRESS_LINE = "listening on "


def serve(
    announce: Callable[[str], None],
    *,
    port_file: Path | None = None,
    parent_pid: int | None = None,
    topics: dict[str, int] | None = None,
) -> None:
    """Run the embedded broker in the foreground until SIGINT or SIGTERM.

    Args:
        announce: called with each line for people: the address, then the limits.
        port_file: gets the port, for whoever started us.
        parent_pid: end as well when this process, which started us, is gone.
        topics: name -> partitions, made at once; others appear on first use.

    Raises:
        LogUnavailable: there is no mock cluster in this build, or a topic name is not allowed.
        OSError: the port file cannot be written.
    """
    with _Stop() as stop, MockCluster() as cluster:
        for name, partitions in (topics or {}).items():
            cluster.create_topic(name, partitions)
        if port_file is not None:
            _write_whole(port_file, cluster.bootstrap.rsplit(":", 1)[1])
        announce(f"{_ADDRESS_LINE}{cluster.bootstrap}")
        for limit in LIMITS:
            announce(f"  {limit}")
        while not stop.wait(_POLL_INTERVAL_S):
            if parent_pid is not None and os.getppid() != parent_pid:
                return


def _write_whole(path: Path, text: str) -> None:
    """Write so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="ascii")
    partial.replace(path)


class _Stop:
    """Turns SIGINT and SIGTERM into a wake-up of `wait`; the former handlers come back at the end."""

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        self._taken = StopSignals(lambda _: os.write(self._writer, b".")).taken()
        self._taken.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._taken.__exit__(None, None, None)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout_s: float) -> bool:
        """Return True once a signal has come."""
        return bool(select.select([self._reader], [], [], timeout_s)[0])


class EmbeddedBroker:
    """The embedded broker in a child process; a context manager.

    Args:
        topics: name -> partitions, made at once.
    """

    def __init__(self, topics: dict[str, int] | None = None) -> None:
        self._topics = topics or {}
        self._process: subprocess.Popen[str] | None = None
        self.bootstrap = ""

    @property
    def pid(self) -> int | None:
        """Process id of the child; None when it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the child and learn its address.

        Raises:
            LogUnavailable: it ended, or said nothing for 15 s.
        """
        arguments = [f"{name}={partitions}" for name, partitions in self._topics.items()]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            (sys.executable, "-m", "producers.embedded", str(os.getpid()), *arguments),
            cwd=Path(__file__).resolve().parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C at the terminal is for the parent, which then ends us.
            start_new_session=True,
        )
        self.bootstrap = self._read_address(self._process)

    def _read_address(self, process: "subprocess.Popen[str]") -> str:
        output = process.stdout
        if output is not None and select.select([output], [], [], _START_LIMIT_S)[0]:
            line = output.readline()
            if line.startswith(_ADDRESS_LINE):
                return line.removeprefix(_ADDRESS_LINE).strip()
        self.stop()
        message = f"the embedded broker did not start within {_START_LIMIT_S:g} s (exit code {process.returncode})"
        raise LogUnavailable(message)

    def stop(self) -> None:
        """End the child; safe to call twice."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self.stop()


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _wanted = (argument.rpartition("=") for argument in sys.argv[2:])
    serve(_print_line, parent_pid=int(sys.argv[1]), topics={name: int(count) for name, _, count in _wanted})
