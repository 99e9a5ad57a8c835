"""`bench profile`: where the CPU of an event goes in a worker under load, part by part.

The whole comes from /proc, the split of native threads (librdkafka) too; the split of the Python threads is sampled by
py-spy, which is installed into build/peers/profiler and reads the process from outside. It needs the right to trace
another process: root, or kernel.yama.ptrace_scope = 0.
"""

import re
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from bench.figures import FOLDER, Figure
from bench.peers.environments import Environment
from bench.processes import threads_cpu_s
from bench.runs import RunFailedError, Stage, run
from bench.sides import Side
from bench.steadiness import job_of

PROFILER = Environment("profiler", "python3.11", ("py-spy==0.4.3",))
_RATE = 250
_SECONDS = 6
_CONSUMER = "shell|agents|membership|tail|fetching|unpacking|joining|log_ends|epochs"
# The innermost frame that belongs to one of these names the part; files of nobody (json, enum, typing) are passed over.
PARTS: tuple[tuple[str, str], ...] = (
    ("logs and metrics", r"structlog|/logging/|prometheus_client|contracts/(logs|metrics)|providers/measured"),
    ("HTTP", r"aiohttp|httptools|streams/providers/|yarl/|multidict|async_timeout"),
    ("producer", r"producers/|confluent_kafka"),
    ("fetch", rf"aiokafka/|faust/|mode/|cramjam|streams/({_CONSUMER})"),
    ("engine", r"streams/engine/"),
    ("pipeline", r"streams/|contracts/|jinja2|<template>|msgspec|jsonschema"),
    ("event loop and socket reads", r"uvloop|asyncio/|selectors|streams/__main__"),
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
    """Add up py-spy's raw form: `frame;frame;frame count` a line, the outermost frame first."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        found[part_of(reversed(stack.split(";")))] += int(count)
    return found


def native(threads: dict[str, float]) -> float:
    """Return the CPU seconds of librdkafka's threads."""
    return sum(cpu_s for name, cpu_s in threads.items() if name.startswith("rdk:"))


class _Look:
    """Starts the sampler when the run is steady, once."""

    def __init__(self, events: int, raw: Path) -> None:
        self._from, self._raw = events // 6, raw
        self.thread: threading.Thread | None = None
        self.before: tuple[float, int, float] | None = None
        self.after: tuple[float, int, float] | None = None
        self.said = "the sampler did not start"

    def __call__(self, stage: Stage) -> None:
        if self.thread is None and len(stage.outcomes.counts) >= self._from:
            self.thread = threading.Thread(target=self._sample, args=(stage,))
            self.thread.start()

    def _sample(self, stage: Stage) -> None:
        pid = stage.worker.pid
        self.before = self._now(stage)
        options = ("--full-filenames", "--nonblocking", "--rate", str(_RATE), "--duration", str(_SECONDS))
        command = (PROFILER.program("py-spy"), "record", "--format", "raw", *options, "--output", str(self._raw))
        ran = subprocess.run(
            (*command, "--pid", str(pid)), capture_output=True, text=True, check=False, timeout=_SECONDS + 60
        )
        self.said = ran.stderr.strip()
        self.after = self._now(stage)

    @staticmethod
    def _now(stage: Stage) -> tuple[float, int, float]:
        threads = threads_cpu_s(stage.worker.pid)
        return sum(threads.values()), len(stage.outcomes.counts), native(threads)


def profile(bootstrap: str, side: Side, in_flight: int) -> list[Figure]:
    """Run the worker once, and split its CPU per event.

    Raises:
        RunFailedError: the run ended before it could be sampled.
    """
    PROFILER.install()
    job = job_of(in_flight, seconds=_SECONDS * 2)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks.txt"
        look = _Look(job.events, raw)
        measured = run(bootstrap, side, job, look)
        if look.thread is not None:
            look.thread.join()
        stacks = raw.read_text("utf-8") if raw.exists() else ""
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "profile.stacks").write_text(stacks, encoding="utf-8")
    if look.before is None or look.after is None or look.after[1] <= look.before[1]:
        msg = f"the run could not be sampled: {look.said}"
        raise RunFailedError(msg)
    events = look.after[1] - look.before[1]
    whole, rdk = (1e6 * (look.after[n] - look.before[n]) / events for n in (0, 2))
    samples = split(stacks)
    figures = [
        Figure(
            "CPU per event, whole worker, not sampled part of the run included", round(measured.steady.cpu_us), "us"
        ),
        Figure("CPU per event while sampled", round(whole), "us", "<= 120", whole <= 120),  # noqa: PLR2004 - the goal
        Figure("producer and readers, librdkafka's threads", round(rdk, 1), "us"),
    ]
    for part, count in samples.most_common():
        figures.append(Figure(part, round((whole - rdk) * count / samples.total(), 1), "us"))
    return figures
