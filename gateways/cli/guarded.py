"""A child process that never outlives us: kill -9 of this process, or Ctrl-C at any instant, ends it and its children.

How: the child is the leader of its own session. Beside it, in its group, a small shell waits on a pipe whose other end
only we hold; when that end closes, for whatever reason, the shell kills the group. The pipe exists before the child
does, so there is no moment at which the child could be left behind. (prctl's parent-death signal would need Linux, and
code between fork and exec.)

Blocking: `kill` until the program has ended, a moment.
"""

import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# $$ is the process that becomes the program: exec keeps its id, which is the group's too. Signals that are meant for
# the program must not end the guard.
_GUARD = (
    'exec 3<&0; (trap "" INT TERM HUP; read -r _ <&3; kill -s KILL -- -$$) >/dev/null 2>&1 & exec "$@" 3<&- </dev/null'
)
_KILL_LIMIT_S = 5.0


class GuardedProcess:
    """A running program.

    Args:
        args: program and arguments.
        environ: its whole environment.
        log: file that gets its standard output and standard error.
    """

    def __init__(self, args: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                ("/bin/sh", "-c", _GUARD, "penstock", *args),
                env=dict(environ),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C at the terminal is for us; we end the children in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The program's process id, and that of its group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Ask it to end; once, because a second time would mean at once. Returns at once."""
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill what is left of the whole group now; safe to call twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_LIMIT_S)

    def last_lines(self, count: int = 15) -> str:
        """Return the end of its output."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-count:])


def wait_until(deadline_s: float, interval_s: float = 0.05) -> bool:
    """Sleep a moment; False once the monotonic deadline has passed."""
    time.sleep(interval_s)
    return time.monotonic() < deadline_s
