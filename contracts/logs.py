"""Log set-up and the names of log fields; one canonical line per event per process."""

import logging
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping
from typing import Any, NamedTuple

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


# One line of a kind in this time: while brokers are away, aiokafka and librdkafka write some 40 a second.
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
    handler.addFilter(REPETITIONS)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


class Kind(NamedTuple):
    """What lines have in common that repeat each other.

    Attributes:
        component: as in the line.
        level: as logging's.
        text: of the line, without what is filled into it.
        error: type and place of an error, if any.
    """

    component: str
    level: int
    text: str
    error: tuple[object, ...] = ()


class Repetitions:
    """Lets one line of a kind through in some seconds, with the number of those left out; used by any thread.

    Without a lock, which a line about garbage could meet in its own thread: of two lines at the same moment both may be
    written, or one not be counted.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until_s: dict[Kind, float] = {}
        self._left_out: Counter[Kind] = Counter()

    def left_out(self, kind: Kind) -> int | None:
        """Return how many lines of a kind were left out before this one; None when this one is, too."""
        now_s = self._clock()
        if now_s < self._quiet_until_s.get(kind, 0.0):
            self._left_out[kind] += 1
            return None
        if len(self._quiet_until_s) >= _MAX_KINDS:
            self._quiet_until_s.clear()
            self._left_out.clear()
        self._quiet_until_s[kind] = now_s + QUIET_S
        return self._left_out.pop(kind, 0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a library's line is written; as logging's filters."""
        try:
            kind = _kind(record)
        except Exception:  # noqa: BLE001 - an object that has no text: logging reports it, and its caller goes on
            return True
        left_out = self.left_out(kind)
        record.similar_left_out = left_out
        return left_out is not None


# Of this process.
REPETITIONS = Repetitions()


def _kind(record: logging.LogRecord) -> Kind:
    text = str(record.msg)
    letters = sum(map(str.isalpha, _FILLED_IN.sub("", text)))
    if letters < _MIN_LETTERS and record.args and isinstance(record.args, tuple):
        # librdkafka's binding gives the kind (`FAIL`) as the first of its arguments.
        text = str(record.args[0])
    return Kind(record.name, record.levelno, text, _raised(record))


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
