"""Log set-up and the names of log fields; one canonical line per event per process."""

import atexit
import contextlib
import logging
import re
import sys
import textwrap
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, NamedTuple, TextIO, cast

import msgspec
import structlog
from structlog.typing import ExcInfo, FilteringBoundLogger, Processor

from contracts.errors import PenstockError
from contracts.metrics import LOG_LINES_UNWRITTEN
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
# What goes on comes again within it, and tells its number itself; librdkafka tries to connect every 1.5 s at least.
_COMES_AGAIN_S = 2.0
_NEVER = float("inf")
_MOST_LETTERS = 200
# Attribute of a record that is itself about lines left out: its further fields.
_ABOUT_LINES = "about_lines"
_FILLED_IN = re.compile(r"%\S*?[a-zA-Z]")

# A logger is built at its first line and kept. Tests, whose standard error changes with every test, switch that off.
KEEP_LOGGERS = True


# Also a file that is closed, one whose buffer is in use by the line that a signal has interrupted, and none at all.
_FAILURES = (OSError, ValueError, RuntimeError, AttributeError)
# Errors of the machine, of the program's own names, and of the Kafka clients: their texts quote no payload. Those of
# ValueError, KeyError and most of the libraries' do, such as `could not convert string to float: '...'`.
_QUOTE_NOTHING = (OSError, ImportError, NameError, AttributeError, MemoryError, RecursionError)
_QUOTING_NOTHING = frozenset({"aiokafka", "cimpl"})
# The function and place in a task as asyncio shows it; behind them come its result or error.
_CORO = re.compile(
    r"^(?:task|future): <Task [^\n]*?coro=<([\w.<>]+)\(\)[^\n>]* at ((?:<string>|[^\s>]+):\d+)>", re.MULTILINE
)


class Output:
    """Standard error, written to without errors, by any thread: what finds no room is counted, and troubles nobody.

    A full disk, a reader that has gone, a terminal that was closed: none of them may stop an event, the answer to a
    request or the orderly end of a program. What Python keeps in its buffer of 8 KiB follows late, once there is room.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self._unwritten = 0

    def write(self, text: str) -> int:
        """Write lines, or count them."""
        try:
            # Not kept: it may be exchanged.
            sys.stderr.write(text)
        except _FAILURES:
            lines = text.count("\n")
            self._unwritten += lines
            LOG_LINES_UNWRITTEN.inc(lines)
        else:
            self._tell()
        return len(text)

    def flush(self) -> None:
        """Write what is in the buffer, if that can be."""
        with contextlib.suppress(*_FAILURES):
            sys.stderr.flush()

    def _tell(self) -> None:
        """Say once how many lines are missing above."""
        unwritten, self._unwritten = self._unwritten, 0
        if unwritten:
            # By logging: structlog's lock is not reentrant, and this runs inside of its write.
            logging.getLogger("log").warning("lines.unwritten", extra={_ABOUT_LINES: {"unwritten": unwritten}})


OUTPUT = Output()


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
        processors=[_tell_first, *shared, _traceback, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", OUTPUT)),
        cache_logger_on_first_use=KEEP_LOGGERS,
    )
    handler = logging.StreamHandler(OUTPUT)
    ours: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _traceback,
        renderer,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*shared, _name_library], processors=ours)
    handler.setFormatter(formatter)
    handler.addFilter(_unquoted)
    handler.addFilter(REPETITIONS)
    _follow_failures()
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
    atexit.unregister(_tell_at_end)
    atexit.register(_tell_at_end)


def described(error: BaseException) -> str:
    """Return an error's type, and its text as far as it is known to quote no body, prompt, answer or secret."""
    text = ""
    # A library's error may fail to tell itself; in a filter that would end whoever writes the line.
    with contextlib.suppress(Exception):
        if isinstance(error, PenstockError):
            text = error.for_log
        elif isinstance(error, _QUOTE_NOTHING) or type(error).__module__.partition(".")[0] in _QUOTING_NOTHING:
            text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _told(exc_info: ExcInfo) -> str:
    """Return a traceback as Python writes it, with the texts of `described`."""
    parts: list[str] = []
    error: BaseException | None = exc_info[1]
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = "".join(traceback.format_tb(error.__traceback__))
        parts.insert(0, f"Traceback (most recent call last):\n{frames}{described(error)}")
        if isinstance(error, BaseExceptionGroup):
            one_by_one = (_told((type(one), one, one.__traceback__)) for one in error.exceptions)
            parts[0] += "".join(f"\n{textwrap.indent(text, '  | ')}" for text in one_by_one)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nWhich led to:\n\n".join(parts)


_traceback = structlog.processors.ExceptionRenderer(_told)


def _unquoted(record: logging.LogRecord) -> bool:
    """Leave the texts of errors out of a library's line; as logging's filters.

    asyncio writes what its loop's exception handlers are told: tasks with `exception=ValueError('...')`, callbacks with
    their arguments. The first line says what happened, and the traceback where.
    """
    record.msg, record.args = _untold(record.msg), _untold(record.args)
    if record.name == "asyncio" and isinstance(record.msg, str) and not record.args:
        told = "Exception in callback"
        first = told if record.msg.startswith(told) else record.msg.partition("\n")[0]
        coro = _CORO.search(record.msg)
        record.msg = f"{first}: {coro[1]} at {coro[2]}" if coro else first
    return True


def _untold(part: Any, depth: int = 3) -> Any:
    """Return a part of a line with the texts of the errors in it left out; bounded, as a list may contain itself."""
    if isinstance(part, BaseException):
        return described(part)
    # Of these types alone: a named tuple is to look like one. list: another thread may add to it.
    if depth and type(part) is dict:
        return {name: _untold(one, depth - 1) for name, one in list(part.items())}
    if depth and type(part) in {list, tuple}:
        return type(part)(_untold(one, depth - 1) for one in part)
    return part


def _follow_failures() -> None:
    """Have what ends a thread or the program in the log; not where a test or a debugger follows it already."""
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_failed
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _program_failed


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or isinstance(args.exc_value, SystemExit):
        return
    about = {_ABOUT_LINES: {"detail": args.thread.name if args.thread else ""}}
    logging.getLogger("threading").error("thread.failed", exc_info=args.exc_value, extra=about)


def _program_failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        logging.getLogger("process").critical("process.failed", exc_info=error)


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
    error: tuple[Any, ...] = ()


class Repetitions:
    """Lets one line of a kind through in some seconds, with the number of those left out; used by any thread.

    Without a lock, which a line about garbage could meet in its own thread: of two lines at the same moment both may be
    written, or one not be counted.

    Behind the last of a kind its number is written by whoever comes next and calls `tell`: another line, a timer, the
    end of the process.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._quiet_until_s: dict[Kind, float] = {}
        self._left_out: Counter[Kind] = Counter()
        self._due_s = _NEVER

    def left_out(self, kind: Kind) -> int | None:
        """Return how many lines of a kind were left out before this one; None when this one is, too."""
        now_s = self._clock()
        quiet_until_s = self._quiet_until_s.get(kind, 0.0)
        if now_s < quiet_until_s:
            self._left_out[kind] += 1
            self._due_s = min(self._due_s, quiet_until_s + _COMES_AGAIN_S)
            left_out = None
        else:
            if len(self._quiet_until_s) >= _MAX_KINDS:
                self._quiet_until_s.clear()
                self._due_s = now_s
            self._quiet_until_s[kind] = now_s + QUIET_S
            left_out = self._left_out.pop(kind, 0)
        self.tell()
        return left_out

    def tell(self, *, is_end: bool = False) -> None:
        """Write how many lines were left out of the kinds that have not come again; costs nothing when there are none.

        Args:
            is_end: of the process: no more of any kind is waited for.
        """
        if self._due_s == _NEVER or not (is_end or self._clock() >= self._due_s):
            return
        for kind, left_out in self._taken(_NEVER if is_end else self._clock()).items():
            # By logging, as their lines were. structlog's lock is not reentrant, and this may run inside of its write.
            logging.getLogger(kind.component).handle(_about_lines(kind, left_out))

    def _taken(self, now_s: float) -> "Counter[Kind]":
        """Return what is to be told now, once."""
        # In this order: what others leave out meanwhile is due afterwards.
        self._due_s = _NEVER
        fresh: Counter[Kind] = Counter()
        left_out, self._left_out = self._left_out, fresh
        due: Counter[Kind] = Counter()
        # Until it is empty, whoever else takes from it.
        with contextlib.suppress(KeyError):
            while True:
                kind, count = left_out.popitem()
                due_s = self._quiet_until_s.get(kind, 0.0) + _COMES_AGAIN_S
                if due_s <= now_s:
                    due[kind] = count
                else:
                    self._left_out[kind] += count
                    self._due_s = min(self._due_s, due_s)
        return due

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a library's line is written; as logging's filters."""
        if hasattr(record, _ABOUT_LINES):
            return True
        try:
            kind = _kind(record)
        except Exception:  # noqa: BLE001 - an object that has no text: logging reports it, and its caller goes on
            return True
        left_out = self.left_out(kind)
        record.similar_left_out = left_out
        return left_out is not None


# Of this process.
REPETITIONS = Repetitions()


def tell_left_out(*, is_end: bool = False) -> None:
    """Write what is due of the lines left out in this process; called now and then, and at the end (`Repetitions`)."""
    REPETITIONS.tell(is_end=is_end)


def _tell_first(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Let a line of ours be one that tells; as structlog's processors."""
    REPETITIONS.tell()
    return line


def _tell_at_end() -> None:
    tell_left_out(is_end=True)


def _about_lines(kind: Kind, left_out: int) -> logging.LogRecord:
    record = logging.LogRecord(kind.component, kind.level, "", 0, "lines.left_out", None, None)
    fields = {"detail": kind.text[:_MOST_LETTERS], "similar_left_out": left_out}
    setattr(record, _ABOUT_LINES, fields | ({"error": kind.error[0].__name__} if kind.error else {}))
    return record


def _kind(record: logging.LogRecord) -> Kind:
    text = str(record.msg)
    letters = sum(map(str.isalpha, _FILLED_IN.sub("", text)))
    if letters < _MIN_LETTERS and record.args and isinstance(record.args, tuple):
        # librdkafka's binding gives the kind (`FAIL`) as the first of its arguments.
        text = str(record.args[0])
    return Kind(record.name, record.levelno, text, _raised(record))


def _raised(record: logging.LogRecord) -> tuple[Any, ...]:
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
    line.update(getattr(record, _ABOUT_LINES, {}))
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
