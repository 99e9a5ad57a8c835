"""`bench profile`: where the CPU of an event goes in a worker under load, part by part.

The worker samples its main thread from inside (`bench/sampled.py`), which needs no right and no program of others; all
else is the kernel's account in /proc. Parts are shares of the samples, so with the other threads they make the whole.
Sampling makes a worker's CPU 1.02 times what it is, by the time of the handler; between runs with it and without that
is not seen (.98, two of each in turn).

From outside it is not done: while a process runs on, its deep stacks change under the reader and are dropped, so the
bare event loop gets too much, and a thread that waits for the interpreter counts as running; a process that is stopped
for it is caught in system calls too often.
"""

import os
import re
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from bench.figures import FOLDER, Figure
from bench.processes import Thread, measure, threads
from bench.runs import RunFailedError, Stage, run
from bench.sides import ROOT, Side
from bench.steadiness import CPU_GOAL_US, job_of
from tests.support import eventually

# So many that a part's share of the samples, one per tick of the kernel in the main thread, is good to some percent.
_SECONDS = 24
_CONSUMER = "shell|agents|membership|tail|fetching|unpacking|joining|log_ends|epochs|frames"
# The innermost frame that belongs to one of these names the part; files of nobody (json, enum, typing) are passed over.
PARTS: tuple[tuple[str, str], ...] = (
    ("logs and metrics", r"structlog|/logging/|prometheus_client|contracts/(logs|metrics)|providers/measured"),
    ("HTTP", r"aiohttp|httptools|streams/providers/|yarl/|multidict|async_timeout"),
    ("producer", r"producers/|confluent_kafka"),
    ("fetch", rf"aiokafka/|faust/|mode/|cramjam|streams/({_CONSUMER})"),
    ("engine", r"streams/engine/"),
    ("pipeline", r"streams/|contracts/|jinja2|<template>|msgspec|jsonschema"),
    ("event loop", r"asyncio/runners"),
)
_PATTERNS = tuple((part, re.compile(pattern)) for part, pattern in PARTS)


def part_of(frames: Iterable[str]) -> str:
    """Return the part of a stack, given from the innermost frame outwards."""
    for frame in frames:
        for part, pattern in _PATTERNS:
            if pattern.search(frame):
                return part
    return "other"


def split(stacks: str) -> Counter[str]:
    """Add up stacks by part: `frame;frame;... weight` a line, the outermost frame first."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, weight = line.rpartition(" ")
        found[part_of(reversed(stack.split(";")))] += int(weight)
    return found


@dataclass(frozen=True)
class Spent:
    """CPU seconds of a process since its start, and results until then.

    Attributes:
        main_s: of the main thread, `kernel_s` of it in the kernel.
        native_s: of librdkafka's threads.
        others_s: of all other threads, ended ones included.
    """

    events: int
    main_s: float
    kernel_s: float
    native_s: float
    others_s: float

    @classmethod
    def of(cls, pid: int, whole_s: float, found: Sequence[Thread], events: int) -> "Spent":
        """Add up threads by what they are."""
        main = next(one for one in found if one.tid == pid)
        native_s = sum(one.cpu_s for one in found if one.name.startswith("rdk:"))
        return cls(events, main.cpu_s, main.system_s, native_s, whole_s - main.cpu_s - native_s)

    @classmethod
    def now(cls, stage: Stage) -> "Spent":
        """Read what the worker has used, and the results that were read."""
        pid = stage.worker.pid
        return cls.of(pid, measure(pid).cpu_s, threads(pid), len(stage.outcomes.counts))

    def since(self, before: "Spent") -> "Spent":
        """Return what was used in between."""
        return Spent(*(now - then for now, then in zip(astuple(self), astuple(before), strict=True)))

    def us(self, seconds: float) -> float:
        """Return microseconds per event."""
        return 1e6 * seconds / self.events


class _Look:
    """Has the worker count when the run is steady, once, and reads /proc before and after."""

    def __init__(self, events: int, raw: Path) -> None:
        self._from, self._raw = events // 6, raw
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._spent: Spent | None = None

    def __call__(self, stage: Stage) -> None:
        if self._thread is None and len(stage.outcomes.counts) >= self._from:
            self._thread = threading.Thread(target=self._count, args=(stage,))
            self._thread.start()

    def _count(self, stage: Stage) -> None:
        os.kill(stage.worker.pid, signal.SIGUSR1)
        before = Spent.now(stage)
        if self._is_over.wait(_SECONDS):
            return
        spent = Spent.now(stage).since(before)
        os.kill(stage.worker.pid, signal.SIGUSR2)
        eventually(self._raw.exists, 10)
        self._spent = spent

    def end(self) -> None:
        """Wait no longer: the worker has ended."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def result(self) -> tuple[Spent, str]:
        """Return what was used meanwhile, and the stacks.

        Raises:
            RunFailedError: the run ended before.
        """
        if self._spent is None or self._spent.events <= 0:
            msg = "the run ended before it was sampled"
            raise RunFailedError(msg)
        return self._spent, self._raw.read_text("utf-8")


def profile(bootstrap: str, side: Side, in_flight: int) -> list[Figure]:
    """Run the worker once, and split its CPU per event.

    Raises:
        RunFailedError: the run ended before it could be sampled.
    """
    job = job_of(in_flight, seconds=_SECONDS * 1.5)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks.txt"
        program = (sys.executable, "-P", str(ROOT / "bench" / "sampled.py"), str(raw), side.program[-1])
        look = _Look(job.events, raw)
        try:
            run(bootstrap, replace(side, program=program), job, look)
        finally:
            look.end()
        spent, stacks = look.result()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "profile.stacks").write_text(stacks, encoding="utf-8")
    return figures(spent, split(stacks))


def figures(spent: Spent, samples: Counter[str]) -> list[Figure]:
    """Return the figures; without the first and the kernel's they add up to the first."""
    whole = spent.us(spent.main_s + spent.native_s + spent.others_s)
    found = [Figure("CPU per event, whole worker", round(whole), "us", f"<= {CPU_GOAL_US}", whole <= CPU_GOAL_US)]
    for part, weight in samples.most_common():
        found.append(Figure(f"main thread: {part}", round(spent.us(spent.main_s) * weight / samples.total(), 1), "us"))
    return [
        *found,
        Figure("consumer's thread and others", round(spent.us(spent.others_s), 1), "us"),
        Figure("librdkafka's threads, producer and readers", round(spent.us(spent.native_s), 1), "us"),
        Figure("of the main thread: in the kernel", round(spent.us(spent.kernel_s), 1), "us"),
    ]
