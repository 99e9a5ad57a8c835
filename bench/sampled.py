"""A worker that samples its own main thread: `python -P bench/sampled.py STACKS worker --config ...`.

A timer on the main thread's CPU clock has the stack taken, so nothing is seen while that thread rests or waits for the
interpreter, however busy other threads are; each stack weighs what the thread used since the one before. Counting
begins at SIGUSR1 and ends at SIGUSR2, which writes STACKS: `frame;frame;... microseconds` a line, outermost first.

Python runs a signal's handler between two of its own steps: native code counts for the Python function that called it,
and that of the event loop for what the loop calls next.
"""

import ctypes
import os
import runpy
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

# Below the kernel's tick (1 to 10 ms), which is when it looks at CPU clocks: so each tick of the thread is a sample.
_EVERY_NS = 500_000
# Of <time.h>, Linux. With the process's clock, as ITIMER_PROF has it, other threads' time wakes the resting loop for a
# sample: it got three times as much (10 % of the main thread, not 3 %), although samples weighed this thread's time.
_CLOCK_THREAD_CPUTIME_ID = 3


class _Event(ctypes.Structure):
    """`struct sigevent`: 64 bytes on Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_int * 12),
    )


class _Times(ctypes.Structure):
    """`struct itimerspec`: the interval and the first time, each in seconds and nanoseconds."""

    _fields_ = (("every", ctypes.c_long * 2), ("first", ctypes.c_long * 2))


class Samples:
    """Stacks of the main thread with its CPU time; to be made on the main thread.

    Args:
        path: where the stacks go, whole at once.

    Raises:
        OSError: the system has no such timer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._weights: Counter[tuple[tuple[CodeType, int], ...]] = Counter()
        self._from_ns = 0
        self._library = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Event(number=signal.SIGPROF)
        self._check(
            self._library.timer_create(_CLOCK_THREAD_CPUTIME_ID, ctypes.byref(event), ctypes.byref(self._timer))
        )
        signal.signal(signal.SIGPROF, self._take)
        signal.signal(signal.SIGUSR1, self._begin)
        signal.signal(signal.SIGUSR2, self._end)

    def _begin(self, _number: int, _frame: FrameType | None) -> None:
        self._weights.clear()
        self._from_ns = time.thread_time_ns()
        self._set(_EVERY_NS)

    def _take(self, _number: int, frame: FrameType | None) -> None:
        used_ns = time.thread_time_ns() - self._from_ns
        stack = []
        while frame is not None:
            stack.append((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        self._weights[tuple(stack)] += used_ns
        self._from_ns = time.thread_time_ns()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._set(0)
        lines = [
            ";".join(f"{code.co_qualname} ({code.co_filename}:{line})" for code, line in reversed(stack))
            + f" {used_ns // 1000}\n"
            for stack, used_ns in self._weights.items()
        ]
        unfinished = self._path.with_suffix(".part")
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.replace(self._path)

    def _set(self, every_ns: int) -> None:
        spans = (ctypes.c_long * 2)(0, every_ns)
        self._check(self._library.timer_settime(self._timer, 0, ctypes.byref(_Times(spans, spans)), None))

    @staticmethod
    def _check(status: int) -> None:
        if status:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    kept = Samples(Path(sys.argv.pop(1)))
    runpy.run_module("streams", run_name="__main__", alter_sys=True)
