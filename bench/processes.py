"""What a process and everything it started use: CPU seconds and resident memory, from /proc."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_EVERY_S = 0.1


@dataclass(frozen=True)
class Sample:
    """CPU seconds since the start and resident bytes of a group of processes at a wall-clock time."""

    at: float
    cpu_s: float
    rss_bytes: int


def measure(session: int) -> Sample:
    """Add up the processes of a session; their ended children are included."""
    ticks, pages = 0, 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:  # it ended while we looked
                continue
            if int(fields[3]) == session:
                ticks += sum(int(field) for field in fields[11:15])
                pages += int(fields[21])
    return Sample(time.time(), ticks / _TICKS, pages * _PAGE)


@dataclass(frozen=True)
class Thread:
    """What a thread has used since its start: CPU seconds in user code and in the kernel, as the kernel tells them."""

    tid: int
    name: str
    user_s: float
    system_s: float

    @property
    def cpu_s(self) -> float:
        """Both."""
        return self.user_s + self.system_s


def threads(pid: int) -> list[Thread]:
    """Return the threads that a process has now; the first's `tid` is the process's."""
    found = []
    for folder in Path(f"/proc/{pid}/task").iterdir():
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it ended while we looked
            continue
        name, _, rest = stat.partition("(")[2].rpartition(")")
        user, system = (int(field) / _TICKS for field in rest.split()[11:13])
        found.append(Thread(int(folder.name), name, user, system))
    return found


class Sampler:
    """Samples a session in a thread of its own until it is stopped."""

    def __init__(self, session: int) -> None:
        self.samples = [measure(session)]
        self._session = session
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> list[Sample]:
        """End the thread and return what it saw."""
        self._stop.set()
        self._thread.join()
        return self.samples

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self.samples.append(measure(self._session))
