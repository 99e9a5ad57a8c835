"""The sampler inside a worker: what it counts, and when."""

import subprocess
import sys
from pathlib import Path

from bench.cpu_split import split
from bench.sides import ROOT
from contracts.settings import environment

# In the worker's place. What the main thread does counts between the signals; so nothing of the other thread's time,
# during which it waits, nor of what it did before and after.
_PROGRAM = """
import os, signal, sys, threading, time, zlib

def used(clock, seconds):
    end = clock() + seconds
    while clock() < end:
        zlib.crc32(b"x" * 1000)

def before(): used(time.thread_time, 0.1)
def inside(): used(time.thread_time, 0.3)
def after(): used(time.thread_time, 0.1)

def waiting():
    thread = threading.Thread(target=used, args=(time.thread_time, 0.3))
    thread.start()
    thread.join()

before()
os.kill(os.getpid(), signal.SIGUSR1)
inside()
waiting()
os.kill(os.getpid(), signal.SIGUSR2)
after()
print(*sys.argv[1:])
"""


def test_the_main_threads_cpu_between_the_two_signals_is_counted_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "__init__.py").touch()
    (tmp_path / "streams" / "__main__.py").write_text(_PROGRAM, encoding="utf-8")
    stacks = tmp_path / "stacks.txt"
    command = (sys.executable, "-P", str(ROOT / "bench" / "sampled.py"), str(stacks), "worker", "--config", "x")
    ran = subprocess.run(
        command,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ran.stdout == "worker --config x\n"
    used = {"before": 0, "inside": 0, "waiting": 0, "after": 0}
    for line in stacks.read_text("utf-8").splitlines():
        stack, _, microseconds = line.rpartition(" ")
        for name in used:
            used[name] += int(microseconds) if f";{name} ({tmp_path}" in stack else 0
    assert used["before"] == used["after"] == 0
    assert used["inside"] > 200_000
    assert used["waiting"] < 60_000
    assert split(stacks.read_text("utf-8")).total() < 400_000
