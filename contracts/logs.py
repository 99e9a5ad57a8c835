"""Log set-up and the names of log fields; one canonical line per event per process."""

import logging
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from contracts.settings import LogSettings

# Fields of the canonical lines; a name that is not here does not go into one.
FIELDS = frozenset(
    {
        "event_id", "source", "type", "subject", "lane", "route", "topic", "partition", "offset", "key_id", "scheme",
        "status", "reason", "detail", "outcome", "attempt", "attempts", "provider", "model", "error", "duration_s",
        "wait_s", "age_s", "input_tokens", "output_tokens", "cost_usd", "body_bytes", "retry_after_s", "owner", "path",
        "door", "result_id", "peer", "similar_left_out", "dedup", "process",
    }
)  # fmt: skip


# While brokers are away, aiokafka writes some 40 lines a second; the same is said as seldom of librdkafka's.
QUIET_S = 10.0
# Of a library's line without what is put into it; shorter ones do not tell one kind from another.
_MIN_LETTERS = 8
_MAX_KINDS = 1000
_FILLED_IN = re.compile(r"%\S*?[a-zA-Z]")

# A logger is built at its first line and kept. Tests, whose standard error changes with every test, switch that off.
KEEP_LOGGERS = True


def configure(settings: LogSettings, process: int | None = None) -> None:
    """Send structured log lines, and those of the libraries, to standard error.

    Args:
        settings: level and format.
        process: named in every line, where several write to one place.
    """
    level = getattr(logging, settings.level.upper())
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    as_json = structlog.processors.JSONRenderer(serializer=_json)
    renderer: Processor = structlog.dev.ConsoleRenderer() if text else as_json
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *(() if process is None else (Naming(process),)),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=KEEP_LOGGERS,
    )
    handler = logging.StreamHandler(sys.stderr)
    ours: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        renderer,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*shared, _name_library], processors=ours)
    handler.setFormatter(formatter)
    handler.addFilter(Repetitions())
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


class Repetitions:
    """Writes one of a library's lines of the same kind in some seconds, with the number of those left out.

    Of the same kind are those of one logger with the same text, whatever is filled into it, and with the same error.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until_s: dict[tuple[object, ...], float] = {}
        self._left_out: Counter[tuple[object, ...]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is written; as logging's filters."""
        try:
            kind = _kind(record)
        except Exception:  # noqa: BLE001 - an object that has no text: logging reports it, and its caller goes on
            return True
        if self._clock() < self._quiet_until_s.get(kind, 0.0):
            self._left_out[kind] += 1
            return False
        if len(self._quiet_until_s) >= _MAX_KINDS:
            self._quiet_until_s.clear()
            self._left_out.clear()
        self._quiet_until_s[kind] = self._clock() + QUIET_S
        record.similar_left_out = self._left_out.pop(kind, 0)
        return True


def _kind(record: logging.LogRecord) -> tuple[object, ...]:
    text = str(record.msg)
    of_all = record.name, record.levelno, text, *_raised(record)
    letters = sum(map(str.isalpha, _FILLED_IN.sub("", text)))
    if letters >= _MIN_LETTERS or not record.args:
        return of_all
    # librdkafka's binding gives the kind (`FAIL`) as the first of its arguments.
    return *of_all, str(record.args[0]) if isinstance(record.args, tuple) else ""


def _raised(record: logging.LogRecord) -> tuple[object, ...]:
    """Return type and place of a line's error: whoever writes "unexpected error" says no more of it in the text."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ()
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return type(error), *places[-1:]


def _name_library(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the logger of a library's line; as structlog's processors."""
    record: logging.LogRecord = line["_record"]
    line.setdefault("component", record.name)
    if left_out := getattr(record, "similar_left_out", 0):
        line["similar_left_out"] = left_out
    return line


class Naming:
    """Names the process in every line.

    Args:
        process: its number.
    """

    def __init__(self, process: int) -> None:
        self.fields = {"process": process}

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As structlog's processors."""
        line.update(self.fields)
        return line


def _json(line: object, **_options: object) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()


def logger(component: str) -> FilteringBoundLogger:
    """Return a logger whose lines name their component."""
    bound: FilteringBoundLogger = structlog.get_logger(component=component)
    return bound
