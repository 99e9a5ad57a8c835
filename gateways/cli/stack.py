"""Starts our programs in their own processes, waits until they are ready, watches them, ends them in order.

Used by `demo` and `up`. Blocking: `wait_ready` and `stop`, both bounded.
"""

import contextlib
import http.client
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self

import click

from contracts.signals import StopSignals
from gateways.cli.guarded import GuardedProcess, wait_until
from gateways.cli.modules import command_of

READY_LIMIT_S = 30.0
_PROBE_TIMEOUT_S = 2.0
TERMINATED = 143
# An end that takes longer than this is explained, and again from time to time.
_SILENT_S = 1.0
_SAY_AGAIN_S = 10.0
# Without the program that the others need, such as the broker, nothing that they wait for can come.
_BEREFT_S = 3.0


def _nothing(_port: int) -> str:
    return ""


@dataclass(frozen=True)
class Program:
    """What to start.

    Attributes:
        name: in messages, and of its log file.
        args: `python -m` arguments; `--port-file PATH` is added.
        ready_path: URL path that answers 200 once it is ready; empty when the port file alone says so.
        environ: variables in addition to the stack's.
        host: where this machine reaches it.
        stop_limit_s: how long its orderly end may take.
        is_needed: others cannot finish without it: it ends after them.
        in_work: asked with its port what it still has in work, for people; empty when it does not say.
    """

    name: str
    args: tuple[str, ...]
    ready_path: str = "/readyz"
    environ: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    stop_limit_s: float = 10.0
    is_needed: bool = False
    in_work: Callable[[int], str] = _nothing


class ProgramFailed(click.ClickException):
    """Raise when a program did not start, or ended while it was needed; shows the end of its log."""

    def __init__(self, name: str, what: str, process: GuardedProcess) -> None:
        last = process.last_lines() or _why_nothing(process.log)
        indented = "\n".join(f"    {line}" for line in last.splitlines())
        super().__init__(f"{name} {what}; its last lines:\n{indented}\n  whole log: {process.log}")
        self.program = name


def _why_nothing(log: Path) -> str:
    """Say what the log could not: on a full disk not even the reason can be written."""
    is_full = shutil.disk_usage(log.parent).free == 0
    return f"(it has written nothing: the disk of {log.parent} is full)" if is_full else "(it has written nothing)"


class Stack:
    """Programs that live and die together; a context manager.

    Args:
        folder: for logs and port files; it exists.
        environ: environment of every program.
        limit_s: how long any of them may take to end, however long it may by itself; no limit when None.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], limit_s: float | None = None) -> None:
        self.folder = folder
        self._environ = dict(environ)
        self._limit_s = limit_s
        self._running: dict[str, tuple[Program, GuardedProcess]] = {}

    def __enter__(self) -> Self:
        """Let SIGTERM and Ctrl-C end us in order, and a second one at once."""
        # Also where a shell has started us in the background, with SIGINT ignored.
        self._signals = StopSignals(_interrupt, _interrupt).taken()
        self._signals.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop whatever runs."""
        try:
            self.stop()
        finally:
            self._signals.__exit__(None, None, None)

    def lend(self, variables: Mapping[str, str]) -> None:
        """Add variables for programs that are started from now on."""
        self._environ |= variables

    def start(self, program: Program) -> None:
        """Start a program; returns at once."""
        self._port_file(program.name).unlink(missing_ok=True)
        args = command_of(*program.args, "--port-file", str(self._port_file(program.name)))
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
                answer = _probe(program.host, port, program.ready_path)
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
        """End all: those that others need last, each within its limit; another Ctrl-C kills what is left."""
        names = list(reversed(self._running))
        try:
            self._end([name for name in names if not self._running[name][0].is_needed])
            self._end([name for name in names if self._running[name][0].is_needed])
        finally:
            for _, process in self._running.values():
                process.kill()
            self._running.clear()

    def _end(self, names: Iterable[str]) -> None:
        """Ask some to end, all at the same time, and wait for them."""
        limits_s = {name: self._stop_limit_s(self._running[name][0]) for name in names}
        for name in limits_s:
            self._running[name][1].ask_to_end()
        begun_s = time.monotonic()
        say_at_s = _SILENT_S
        while limits_s:
            passed_s = time.monotonic() - begun_s
            for name in [name for name, limit_s in limits_s.items() if self._is_over(name, passed_s, limit_s)]:
                self._running[name][1].kill()
                del limits_s[name]
            if limits_s and passed_s >= say_at_s:
                left_s = max(limits_s.values()) - passed_s
                shown = ", ".join(map(self._described, limits_s))
                click.echo(f"waiting for {shown}, {left_s:.0f} s at most; Ctrl-C ends everything at once", err=True)
                say_at_s = passed_s + _SAY_AGAIN_S
            wait_until(0.0)

    def _stop_limit_s(self, program: Program) -> float:
        is_bereft = any(other.is_needed and process.exit_code is not None for other, process in self._running.values())
        limits_s = (program.stop_limit_s, self._limit_s, _BEREFT_S if is_bereft else None)
        return min(limit_s for limit_s in limits_s if limit_s is not None)

    def _is_over(self, name: str, passed_s: float, limit_s: float) -> bool:
        """Tell whether a program has ended, or has to be ended."""
        if self._running[name][1].exit_code is not None:
            return True
        if passed_s < limit_s:
            return False
        click.echo(f"{name} did not end within {limit_s:g} s and was killed", err=True)
        return True

    def _described(self, name: str) -> str:
        port = self._port(name)
        in_work = self._running[name][0].in_work(port) if port else ""
        return f"{name} ({in_work})" if in_work else name

    def _port_file(self, name: str) -> Path:
        return self.folder / f"{name}.port"

    def _port(self, name: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            return int(self._port_file(name).read_text(encoding="ascii"))
        return 0


def _interrupt(number: signal.Signals) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)


def _probe(host: str, port: int, path: str) -> str:
    """Return why a program is not ready yet; empty when it is."""
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(500).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"{path}: {error}"
    finally:
        connection.close()
    return "" if answer.status == http.client.OK else f"{path} answered {answer.status}: {text}"
