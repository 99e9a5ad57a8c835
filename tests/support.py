"""What tests of every package need: bounded polling, ports, child processes that always end, a settable clock.

Blocking: `eventually` and `ChildProcess` block the calling thread, never longer than the bound they are given.
"""

import asyncio
import contextlib
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, overload
from unittest import mock

from tests.nursery import Forked, Nursery

ROOT = Path(__file__).resolve().parent.parent
POLL_INTERVAL_S = 0.02

T = TypeVar("T")


class NotReachedError(AssertionError):
    """Raise when a state that a test waits for did not come within its bound."""


def eventually(fn: Callable[[], T], within_s: float = 10.0) -> T:
    """Poll `fn` until it returns something truthy, and return that.

    An AssertionError raised by `fn` counts as "not yet", so a whole assertion can be polled.

    Raises:
        NotReachedError: after `within_s` seconds, naming the last value or chained to the last failed assertion.
    """
    end = time.monotonic() + within_s
    while True:
        last: object
        try:
            if value := fn():
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise _not_reached(within_s, last)
        time.sleep(POLL_INTERVAL_S)


@overload
async def eventually_async(fn: Callable[[], Awaitable[T]], within_s: float = 10.0) -> T: ...
@overload
async def eventually_async(fn: Callable[[], T], within_s: float = 10.0) -> T: ...
async def eventually_async(fn: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Do the same as `eventually` and leave the event loop free; `fn` may be a coroutine function."""
    end = time.monotonic() + within_s
    while True:
        last: object
        try:
            outcome = fn()
            value = await outcome if inspect.isawaitable(outcome) else outcome
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise _not_reached(within_s, last)
        await asyncio.sleep(POLL_INTERVAL_S)


def _not_reached(within_s: float, last: object) -> NotReachedError:
    error = NotReachedError(f"not reached within {within_s:g} s; last: {last!r}")
    if isinstance(last, AssertionError):
        error.__cause__ = last
    return error


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Refuse every new thread, as a container at its limit does; those that there are go on."""
    refusal = RuntimeError("can't start new thread")
    with mock.patch.object(threading.Thread, "start", side_effect=refusal):
        yield


def ask(url: str, body: bytes | None = None, *, method: str = "GET", timeout_s: float = 10.0) -> bytes:
    """Return the answer of a server of ours; an answer that is no success is urllib's HTTPError."""
    request = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 - loopback
        content: bytes = response.read()
        return content


def read_port(path: Path, within_s: float = 40.0) -> int:
    """Return the port that a program writes to a file once it listens."""
    return int(eventually(lambda: path.exists() and path.read_text("utf-8").strip(), within_s))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago; prefer binding port 0 where the program can."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class FakeClock:
    """A clock that moves only when told: call it for monotonic seconds, ask `now` for the matching UTC instant."""

    def __init__(self, start_at: datetime = datetime(2026, 1, 1, tzinfo=UTC), monotonic_s: float = 1000.0) -> None:
        self._start_at = start_at
        self._start_s = monotonic_s
        self._elapsed_s = 0.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self._start_s + self._elapsed_s

    def now(self) -> datetime:
        """Return the aware UTC instant."""
        return self._start_at + timedelta(seconds=self._elapsed_s)

    def time(self) -> float:
        """Return Unix seconds, as `time.time` does."""
        return self.now().timestamp()

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`, which may not be negative."""
        if seconds < 0:
            msg = "a clock does not go back"
            raise ValueError(msg)
        self._elapsed_s += seconds


class Leash:
    """Kills a process group as soon as this process ends, even by SIGKILL; `release` lets it go.

    A small shell waits on a pipe that only this process holds: the end of the pipe is the end of its holder.
    """

    def __init__(self, group_id: int) -> None:
        self._watcher = subprocess.Popen(
            ("/bin/sh", "-c", f"read _; kill -s KILL -- -{group_id:d} 2>/dev/null"),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Ctrl-C reaches the whole foreground group; the watcher must outlive that.
            start_new_session=True,
        )

    def release(self) -> None:
        """End the watcher and leave the process group alone; safe to call twice."""
        self._watcher.kill()
        self._watcher.wait()
        if self._watcher.stdin is not None:
            self._watcher.stdin.close()


class ChildProcess:
    """A program of ours in a process of its own: `ChildProcess("streams", "worker", "--port", "0")` is `python -m ...`.

    stdout and stderr go to one file, so that a full pipe never blocks the program; `output` reads it. Leaving the
    context ends the process and everything it started: SIGTERM first, SIGKILL after `grace_s`.

    Args:
        args: the module and its arguments.
        env: variables in addition to this process's own; a None value removes one.
        cwd: working directory, the project's root unless told.
        grace_s: how long SIGTERM may take before SIGKILL.

    Attributes:
        nursery: forks the programs of tests that ask for that; see tests/nursery.py.
    """

    nursery: ClassVar[Nursery | None] = None

    def __init__(
        self,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        cwd: Path = ROOT,
        grace_s: float = 10.0,
    ) -> None:
        self.args = (sys.executable, "-m", *args)
        self._env = _environment_with(env or {})
        self._cwd = cwd
        self._grace_s = grace_s
        log, name = tempfile.mkstemp(prefix="penstock-child-", suffix=".log")
        os.close(log)
        self._log = Path(name)
        # As long as this object lives the output stays readable. No open file is kept for that: one in a reference
        # cycle is closed by the garbage collector, with a warning in whatever test runs at that moment.
        weakref.finalize(self, self._log.unlink, missing_ok=True)
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._leash: Leash | None = None

    def __enter__(self) -> Self:
        """Start it."""
        with self._log.open("ab") as log:
            if self.nursery is not None and self.nursery.takes(self._env):
                self._process = self.nursery.start(self.args[2:], self._env, self._cwd, log)
            else:
                self._process = subprocess.Popen(
                    self.args,
                    cwd=self._cwd,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        self._leash = Leash(self._process.pid)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it, however the test ended."""
        self.stop()

    @property
    def process(self) -> "subprocess.Popen[bytes] | Forked":
        """The running process."""
        if self._process is None:
            msg = "use ChildProcess as a context manager"
            raise RuntimeError(msg)
        return self._process

    @property
    def pid(self) -> int:
        """Its process id, also that of its process group."""
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything it has printed so far, stdout and stderr together."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, within_s: float = 20.0) -> re.Match[str]:
        """Return the first match of the regular expression in the output.

        Raises:
            NotReachedError: when it does not come in time, or the process ends before; with the output.
        """

        def found() -> re.Match[str] | bool:
            ended = self.process.poll() is not None
            return re.search(pattern, self.output, re.MULTILINE) or ended

        try:
            match = eventually(found, within_s)
        except NotReachedError:
            match = True
        if isinstance(match, bool):
            code = self.process.poll()
            msg = f"no {pattern!r} in the output of {' '.join(self.args)}, exit code {code}:\n{self.output}"
            raise NotReachedError(msg)
        return match

    def wait(self, within_s: float = 20.0) -> int:
        """Return the exit code once it has ended by itself.

        Raises:
            NotReachedError: when it still runs after `within_s` seconds; with the output.
        """
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            msg = f"{' '.join(self.args)} still runs after {within_s:g} s:\n{self.output}"
            raise NotReachedError(msg) from error

    def insist(self, number: signal.Signals, within_s: float = 8.0) -> int:
        """Send a signal until the process has ended, and return the exit code.

        One that comes at the same moment as the signal before it is the same wish, and does nothing.
        """

        def has_ended() -> bool:
            self.process.send_signal(number)
            return self.process.poll() is not None

        eventually(has_ended, within_s)
        return self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, for example SIGSTOP or SIGKILL."""
        self.process.send_signal(number)

    def stop(self) -> None:
        """End the process and its group; safe to call twice."""
        if self._process is None or self._leash is None:
            return
        end_group(self._process, self._grace_s)
        self._leash.release()


def end_group(process: "subprocess.Popen[bytes] | Forked", grace_s: float) -> None:
    """End a process started as the leader of its own group, and the group: SIGTERM, after `grace_s` seconds SIGKILL."""

    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    if process.poll() is None:
        send(signal.SIGTERM)
        # A stopped process sees SIGTERM only when it goes on.
        send(signal.SIGCONT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    send(signal.SIGKILL)
    process.wait()


def _environment_with(changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {**os.environ, "PYTHONUNBUFFERED": "1", **changes}
    return {name: value for name, value in merged.items() if value is not None}
