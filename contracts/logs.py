"""Log set-up and the names of log fields; one canonical line per event per process."""

import logging
import sys
from collections.abc import MutableMapping
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
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=ours)
    handler.setFormatter(formatter)
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


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
