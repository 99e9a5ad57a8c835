"""Writes a process's most frequent line cheaply: many lines are encoded and written together.

The lines are those that structlog would write (tests hold the two against each other), at a tenth of its CPU. They wait
for company up to 50 ms, so a SIGKILL may lose that many; every other line goes through structlog, at once.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

from contracts.logs import OUTPUT, Naming, logger

# Calls a function after so many seconds; of the event loop that uses the log.
CallLater = Callable[[float, Callable[[], None]], object]

_WAIT_S = 0.05
# Lines of one write; beyond it they do not wait.
_MOST = 256

_encoder = msgspec.json.Encoder(enc_hook=str)


class LineLog:
    """Lines of one component; used by one event loop, and flushed by whoever ends the process.

    Args:
        component: as for `contracts.logs.logger`.
        call_later: how lines that wait are written.
    """

    def __init__(self, component: str, call_later: CallLater) -> None:
        self._component = component
        self._call_later = call_later
        self._log = logger(component)
        self._lines: list[tuple[str, str, dict[str, Any], int]] = []
        self._second = (0, "")
        self._processors: list[Any] = []
        self._last: Any = None
        self._more: dict[str, Any] = {}
        self._is_direct = False

    def write(self, event: str, level: Literal["info", "warning"], fields: dict[str, Any]) -> None:
        """Write a line, soon."""
        # Both are compared: who captures lines exchanges the processors in place.
        if not self._lines or self._processors[-1] is not self._last:
            self.flush()
            self._look()
        if not self._is_direct:
            (self._log.info if level == "info" else self._log.warning)(event, **fields)
            return
        # Encoded later, one after the other: alone, each would find the processor's caches full of other code.
        self._lines.append((event, level, fields, time.time_ns() // 1000))
        if len(self._lines) == 1:
            self._call_later(_WAIT_S, self.flush)
        elif len(self._lines) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Write what waits; also at the end of the process."""
        lines, self._lines = self._lines, []
        if lines:
            written = [self._encoded(*line) for line in lines]
            OUTPUT.write(b"\n".join([*written, b""]).decode())
            OUTPUT.flush()

    def _encoded(self, event: str, level: str, fields: dict[str, Any], micros: int) -> bytes:
        end = {"event": event, "level": level, "timestamp": self._time(micros)} | self._more
        try:
            return _encoder.encode({"component": self._component, **fields, **end})
        except (ValueError, TypeError, OverflowError):
            # A lone surrogate, say: it must not cost the lines of the others.
            return _encoder.encode({"component": self._component, "detail": ascii(fields), **end})

    def _look(self) -> None:
        """Find out whether structlog would write lines as JSON now, and what it would add."""
        processors = structlog.get_config()["processors"]
        self._processors, self._last = processors, processors[-1]
        self._is_direct = isinstance(self._last, structlog.processors.JSONRenderer) and self._log.is_enabled_for(
            logging.INFO
        )
        self._more = next((one.fields for one in processors if isinstance(one, Naming)), {})

    def _time(self, micros: int) -> str:
        second, micros = divmod(micros, 1_000_000)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second[1]}.{micros:06d}Z"
