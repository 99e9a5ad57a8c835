"""Starts our programs in their own processes, waits until they are ready, watches them, stops them in reverse order.

Used by `demo` and `up`. Blocking: `wait_ready` and `stop`, both bounded.
"""

import contextlib
import http.client
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

import click

from gateways.cli.guarded import GuardedProcess, wait_until

READY_LIMIT_S = 30.0
_PROBE_TIMEOUT_S = 2.0
TERMINATED = 143


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        name: in messages, and of its log file.
        args: `python -m` arguments; `--port-file PATH` is added.
        ready_path: URL path that answers 200 once it is ready; empty when the port file alone says so.
        environ: variables in addition to the stack's.
    """

    name: str
    args: tuple[str, ...]
    ready_path: str = "/readyz"
    environ: Mapping[str, str] = field(default_factory=dict)


class ProgramFailed(click.ClickException):
    """Raise when a program did not start, or ended while it was needed; shows the end of its log."""

    def __init__(self, name: str, what: str, process: GuardedProcess) -> None:
        last = process.last_lines() or "(it has written nothing)"
        indented = "\n".join(f"    {line}" for line in last.splitlines())
        super().__init__(f"{name} {what}; its last lines:\n{indented}\n  whole log: {process.log}")
        self.program = name


class Stack:
    """Programs that live and die together; a context manager.

    Args:
        folder: for logs and port files; it exists.
        environ: environment of every program.
        grace_s: how long each may take to end.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], grace_s: float) -> None:
        self.folder = folder
        self._environ = dict(environ)
        self._grace_s = grace_s
        self._running: dict[str, tuple[Program, GuardedProcess]] = {}

    def __enter__(self) -> Self:
        """Let SIGTERM and Ctrl-C end us in order."""
        self._former = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, _exit_in_order),
            # Shells start background programs with SIGINT ignored, and Python leaves it so.
            signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        }
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop whatever runs."""
        try:
            self.stop()
        finally:
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def lend(self, variables: Mapping[str, str]) -> None:
        """Add variables for programs that are started from now on."""
        self._environ |= variables

    def start(self, program: Program) -> None:
        """Start a program; returns at once."""
        self._port_file(program.name).unlink(missing_ok=True)
        args = (sys.executable, "-m", *program.args, "--port-file", str(self._port_file(program.name)))
        environ = self._environ | dict(program.environ) | {"PYTHONUNBUFFERED": "1"}
        process = GuardedProcess(args, environ, self.folder / f"{program.name}.log")
        self._running[program.name] = (program, process)

    def wait_ready(self, name: str, limit_s: float = READY_LIMIT_S) -> int:
        """Return the program's port once it is ready.

        Raises:
            ProgramFailed: it ended, or is not ready in time; with the reason and the end of its log.
        """
        program, process = self._running[name]
        deadline_s = time.monotonic() + limit_s
        answer = "it has not named its port"
        while wait_until(deadline_s):
            self.check()
            port = self._port(name)
            if port and not program.ready_path:
                return port
            if port:
                answer = _probe(port, program.ready_path)
                if not answer:
                    return port
        raise ProgramFailed(name, f"was not ready within {limit_s:g} s ({answer})", process)

    def check(self) -> None:
        """See that all programs run.

        Raises:
            ProgramFailed: one has ended.
        """
        for name, (_, process) in self._running.items():
            if process.exit_code is not None:
                raise ProgramFailed(name, f"ended with exit code {process.exit_code}", process)

    def stop(self) -> None:
        """End all, the last started first; a second Ctrl-C kills what is left."""
        try:
            for name in reversed(list(self._running)):
                if not self._running[name][1].stop(self._grace_s):
                    click.echo(f"{name} did not end within {self._grace_s:g} s and was killed", err=True)
                del self._running[name]
        finally:
            for _, process in self._running.values():
                process.kill()
            self._running.clear()

    def _port_file(self, name: str) -> Path:
        return self.folder / f"{name}.port"

    def _port(self, name: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._port_file(name).read_text(encoding="ascii"))
        return 0


def _exit_in_order(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def _probe(port: int, path: str) -> str:
    """Return why a program is not ready yet; empty when it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(500).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{path}: {error}"
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{path} answered {answer.status}: {text}"
