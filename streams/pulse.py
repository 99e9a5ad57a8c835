"""Feels the event loop's pulse from outside it: a loop that is stuck cannot report itself.

Blocking: a daemon thread, one round trip to the loop at a time. While the loop is stuck /healthz cannot answer, which
a probe sees as a time-out; this thread says where the loop is stuck, once per standstill.
"""

import asyncio
import sys
import threading
import time
import traceback

from contracts.logs import logger
from contracts.metrics import LOOP_LAG, LOOP_STALLS

_EVERY_S = 0.5
_STACK_LINES = 12


class Pulse:
    """Asks the loop again and again; one thread.

    Args:
        loop: to be watched; made and started in the loop's own thread.
        limit_s: beyond it the loop's stack is logged.
        every_s: pause between two questions.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit_s: float, every_s: float = _EVERY_S) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._every_s = every_s
        self._owner = threading.get_ident()
        self._stopped = threading.Event()
        self._beat = threading.Event()
        self._last_s = 0.0
        self._asked_at_s: float | None = None
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end; returns at once."""
        self._stopped.set()
        self._beat.set()

    @property
    def lag_s(self) -> float:
        """Return how late the loop is: now, or at the last question."""
        asked_at_s = self._asked_at_s
        return self._last_s if asked_at_s is None else max(self._last_s, time.monotonic() - asked_at_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._beat.clear()
            # A stop since the pause has set the beat that is forgotten here; a loop that has ended never answers.
            if self._stopped.is_set():
                return
            began_s = self._asked_at_s = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:
                return
            if not self._beat.wait(self._limit_s):
                LOOP_STALLS.inc()
                logger("worker").error("loop.stuck", detail=f"for {self._limit_s:g} s", path=self._where())
                while not self._beat.wait(self._every_s):
                    LOOP_LAG.set(time.monotonic() - began_s)
            self._last_s = time.monotonic() - began_s
            self._asked_at_s = None
            LOOP_LAG.set(self._last_s)

    def _where(self) -> str:
        """Return the loop's stack: files, lines and functions, no values."""
        frame = sys._current_frames().get(self._owner)  # noqa: SLF001 - the documented way to another thread's stack
        frames = traceback.extract_stack(frame)[-_STACK_LINES:] if frame is not None else []
        return " < ".join(f"{one.name} ({one.filename}:{one.lineno})" for one in reversed(frames))
