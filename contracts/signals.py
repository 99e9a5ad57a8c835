"""The one rule of SIGTERM and SIGINT, for every program: the first asks for an orderly end, a later one ends at once.

`timeout` and some supervisors send a signal to the process and to its group, within a moment. That is one wish: taken
for two, it would cut off what was to be finished, such as model calls that then are paid for again.

SIGHUP is what a closed terminal sends, and some operators to have a configuration read again. The gateway does that; by
itself it would end any other program in the middle of its work, so it asks for an orderly end as well.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGINT)
# What comes so soon after the first signal of a wish is that wish, seconds. The two of `timeout` are below 1 ms apart.
ONE_WISH_S = 0.05

OnSignal = Callable[[signal.Signals], object]


def end_at_once(number: signal.Signals) -> NoReturn:
    """End this process with the exit code of a program that a signal has ended; nothing is closed or finished."""
    for stream in (sys.stdout, sys.stderr):
        # On a full disk, or when its reader is gone.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(128 + number)


def interrupts_kill() -> Callable[[], None]:
    """Let Ctrl-C kill this process: in the middle of an import Python's own answer to it is a traceback.

    Returns what gives Python its answer back. Does nothing where SIGINT is ignored or taken already, or in a thread.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return _nothing
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    except ValueError:
        # Only the main thread may.
        return _nothing
    return _give_back


@contextlib.contextmanager
def killable() -> Iterator[None]:
    """Let Ctrl-C kill this process meanwhile, as `interrupts_kill` does.

    For calls into librdkafka that may take seconds, as Python hears of a signal when they return, not before; and
    for imports.
    """
    answered = interrupts_kill()
    try:
        yield
    finally:
        answered()


def _nothing() -> None:
    """Give nothing back."""


def _give_back() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ending() -> tuple[signal.Signals, ...]:
    # Under nohup it is ignored, and stays so.
    return (*ENDING, signal.SIGHUP) if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL else ENDING


class StopSignals:
    """Takes the signals of one program; an instance is a signal handler.

    Args:
        begin: begins the orderly end, at the first signal.
        cut_short: called at every later wish; ends the process by itself, or raises.
        clock: monotonic seconds.
    """

    def __init__(
        self, begin: OnSignal, cut_short: OnSignal = end_at_once, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._begin = begin
        self._cut_short = cut_short
        self._clock = clock
        self._wished_at_s: float | None = None

    def __call__(self, number: int, _frame: object = None) -> None:
        """Take a signal."""
        now_s, before_s = self._clock(), self._wished_at_s
        # Of a terminal that is closed, the kernel and the shell may each tell, seconds apart.
        if before_s is not None and (now_s - before_s < ONE_WISH_S or number == signal.SIGHUP):
            return
        self._wished_at_s = now_s
        (self._begin if before_s is None else self._cut_short)(signal.Signals(number))

    def follow(self, add_handler: Callable[..., object], numbers: Sequence[signal.Signals] | None = None) -> None:
        """Listen on an event loop, whose `add_signal_handler` is given; to SIGHUP too, unless numbers are given."""
        for number in _ending() if numbers is None else numbers:
            add_handler(number, self, number)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Listen in a program without an event loop; the former handlers come back at the end."""
        former = {number: signal.signal(number, self) for number in ENDING}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
