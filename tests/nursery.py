"""Starts programs of ours by forking one that has imported what they need, which costs each most of a second of CPU.

A fork has the arguments, environment, folder, output, session and end that `python -m` would give it. It has no start
of its own: tests of how programs start, import and are interrupted meanwhile use real ones.

Blocking: `Nursery` until its program has imported everything, at the first start.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

# What the programs of the Kafka tests import; another module is imported by the fork itself.
PRELOADED = (
    "streams.worker",
    "streams.fmstub.command",
    "streams.handover.command",
    "gateways.cli.main",
    "gateways.cli.batch",
    "gateways.cli.dlq",
    "gateways.cli.egress",
    "gateways.cli.gateway",
)
# Python and packages read other variables while they start, and a fork has done that.
LATE_VARIABLES = ("PENSTOCK_", "TEST_", "AWS_", "PYTEST_")
MAX_REQUEST_BYTES = 1 << 17
_IS_POSSIBLE = hasattr(os, "pidfd_open")


class Forked:
    """What `subprocess.Popen` offers of a program, for one that is a child of the nursery."""

    def __init__(self, args: Sequence[str], pid: int, end: int) -> None:
        self.args = args
        self.pid = pid
        self.returncode: int | None = None
        self._end = end
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _look(self, within_s: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and _is_readable(self._end, within_s):
                told = os.read(self._end, 16)
                os.close(self._end)
                # Nothing told: the nursery has ended, and nobody knows. Whoever asked for the program kills its group.
                self.returncode = int(told or -signal.SIGKILL)
            return self.returncode


def _is_readable(file: int, within_s: float | None) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        return bool(selector.select(within_s))


class Nursery:
    """The program that forks, for one process of tests; it ends with that."""

    def __init__(self, folder: Path) -> None:
        self._environ = dict(os.environ)
        self._folder = folder
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def takes(self, environ: Mapping[str, str]) -> bool:
        """Tell whether a program with this environment can be forked."""
        changed = {name for name, _ in environ.items() ^ self._environ.items()}
        return _IS_POSSIBLE and all(
            name.startswith(LATE_VARIABLES) or (name, environ.get(name)) == ("PYTHONPATH", str(self._folder))
            for name in changed
        )

    def start(self, args: Sequence[str], environ: Mapping[str, str], cwd: Path, output: IO[bytes]) -> Forked:
        """Fork one; `args` are the module and its arguments."""
        request = json.dumps({"args": args, "environ": dict(environ), "cwd": str(cwd)}).encode()
        reading, writing = os.pipe()
        try:
            with self._lock:
                pid = self._asked(request, [output.fileno(), writing])
        finally:
            os.close(writing)
        if not pid:
            os.close(reading)
            msg = "the program that forks others has ended; its error is on the standard error"
            raise RuntimeError(msg)
        return Forked(args, int(pid), reading)

    def _asked(self, request: bytes, files: list[int]) -> bytes:
        """Return what the fork itself answers, once it leads a session of its own; nothing when there is none."""
        control = self._control = self._control or self._begin()
        try:
            socket.send_fds(control, [request], files)
        except BrokenPipeError:
            return b""
        return control.recv(16)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "tests.nursery", str(theirs.fileno())),
                cwd=self._folder,
                env=self._environ | {"PYTHONUNBUFFERED": "1"},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        return ours

    def close(self) -> None:
        """End it; what it has forked is ended by whoever asked for it."""
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.wait()


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork until the other side is gone; in a fork, return what it was asked to be."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    _tell_end(key.fd, *key.data)
                    continue
                message, files, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 2)
                if not message:
                    return None
                output, end = files
                pid = os.fork()
                if not pid:
                    for other in selector.get_map().values():
                        if other.data is not None:
                            os.close(other.fd)
                            os.close(other.data[1])
                    os.close(end)
                    return {**json.loads(message), "output": output}
                os.close(output)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, end))


def _tell_end(watch: int, pid: int, end: int) -> None:
    os.close(watch)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        os.write(end, b"%d" % code)
    os.close(end)


def _become(wanted: dict[str, Any], control: socket.socket) -> None:
    """Be that program, in a fork."""
    os.setsid()
    control.send(b"%d" % os.getpid())
    control.close()
    for number in (1, 2):
        os.dup2(wanted["output"], number)
    os.close(wanted["output"])
    os.environ.clear()
    os.environ.update(wanted["environ"])
    os.chdir(wanted["cwd"])
    # As at a start: what PYTHONPATH names comes first, and is not there a second time for an installation's sake.
    more = [folder for folder in wanted["environ"].get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [wanted["cwd"], *more, *(folder for folder in sys.path[1:] if folder not in more)]
    module, *sys.argv[1:] = wanted["args"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    for name in PRELOADED:
        importlib.import_module(name)
    # A fork has one thread: one that holds a lock when it is made would hold it for ever.
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "an import has started a thread"
    # What is never collected is not copied for that.
    gc.freeze()
    wanted = _serve(control)
    if wanted is not None:
        _become(wanted, control)


if __name__ == "__main__":
    _main()
