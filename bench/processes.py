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


def threads_cpu_s(pid: int) -> dict[str, float]:
    """Return CPU seconds by the name of the thread; threads of one name are added up."""
    found: dict[str, float] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (
            (folder / "stat").read_text(encoding="utf-8", errors="replace").partition("(")[2].rpartition(")")
        )
        fields = rest.split()
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / _TICKS
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
