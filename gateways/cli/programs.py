"""The programs that `demo` and `up` start, and the variables that tie them together."""

import http.client
import urllib.request
from pathlib import Path
from typing import TypeVar

import msgspec

from contracts.settings import Settings
from contracts.settings.load import DEFAULT_FILE
from contracts.stuck import StuckReport
from contracts.topics import Topics
from gateways.cli.stack import Program
from gateways.listening import nearby, reached_at

# As many as the embedded broker gives a topic that appears by itself: every client then sees the same.
EMBEDDED_PARTITIONS = 4
BROKER = "broker"
STUB = "fm-stub"
GATEWAY = "gateway"
WORKER = "worker"
_T = TypeVar("_T")
_ASK_LIMIT_S = 1.0
# On top of a program's own bound, by which it ends itself: the exit of its process.
_EXIT_S = 3.0
# What of a worker's events keeps it from ending, in words.
_HOLDS_UP = {"calling": "in a model call", "settling": "waiting for Kafka's ack"}


def configuration(config: Path | None) -> Path:
    """Return the file asked for, or ./penstock.yaml, or the one of the checkout that this code stands in."""
    if config is not None:
        return config
    checkout = Path(__file__).resolve().parents[2] / DEFAULT_FILE
    return checkout if checkout.is_file() and not Path(DEFAULT_FILE).is_file() else Path(DEFAULT_FILE)


def broker(settings: Settings) -> Program:
    """Return the embedded broker, with all topics there from the start."""
    outputs = frozenset(route.output_topic for route in settings.routes if route.output_topic)
    topics = Topics(settings.kafka.topic_prefix).table(outputs, has_doors=bool(settings.egress))
    wanted = [part for topic in topics for part in ("--topic", f"{topic.name}:{EMBEDDED_PARTITIONS}")]
    return Program(BROKER, ("gateways.cli", "broker", *wanted), ready_path="", is_needed=True)


def stub() -> Program:
    """Return the stand-in for model servers."""
    return Program(STUB, ("streams", "fm-stub", "--port", "0"), ready_path="/healthz", is_needed=True)


def gateway(config: Path, port: int, settings: Settings) -> Program:
    """Return the HTTP gateway; port 0 is any free one."""
    return Program(
        GATEWAY,
        ("gateways.cli", "gateway", "--config", str(config)),
        environ={"PENSTOCK_GATEWAY__PORT": str(port)},
        host=nearby(settings.gateway.host),
        stop_limit_s=settings.gateway.stop_limit_s + _EXIT_S,
    )


def worker(config: Path, folder: Path, settings: Settings) -> Program:
    """Return a worker; Faust makes a data folder even when there is nothing to put into it: below `folder`."""
    environ = {"PENSTOCK_WORKER__HEALTH_PORT": "0", "APP_DATADIR": str(folder / "faust")}
    host = settings.worker.health_host
    return Program(
        WORKER,
        ("streams", "worker", "--config", str(config)),
        environ=environ,
        host=nearby(host),
        stop_limit_s=settings.worker.stop_limit_s + _EXIT_S,
        in_work=lambda port: in_work(reached_at(host, port)),
    )


def in_work(worker_url: str) -> str:
    """Return what keeps a worker from ending, in words; empty when nothing does, or it does not say."""
    report = _ask(f"{worker_url}/stuck", StuckReport)
    if report is None:
        return ""
    counts = {words: report.events.get(state, 0) for state, words in _HOLDS_UP.items()}
    return ", ".join(f"{count} event{'' if count == 1 else 's'} {words}" for words, count in counts.items() if count)


def warnings(worker_url: str) -> dict[str, str]:
    """Return what a worker warns of while it is ready: slug -> words; empty when it does not say."""
    page = _ask(f"{worker_url}/readyz", _Ready)
    found = (warning.partition(": ") for warning in page.warnings) if page else ()
    return {slug: words for slug, _, words in found}


class _Ready(msgspec.Struct):
    warnings: tuple[str, ...] = ()


def _ask(url: str, kind: type[_T]) -> _T | None:
    try:
        with urllib.request.urlopen(url, timeout=_ASK_LIMIT_S) as answer:  # noqa: S310 - our own program
            return msgspec.json.decode(answer.read(), type=kind)
    except (OSError, ValueError, http.client.HTTPException):
        return None


def embedded_kafka(port: int) -> dict[str, str]:
    """Return the variables that point every program at the embedded broker."""
    return {
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
        "PENSTOCK_KAFKA__EMBEDDED": "true",
        "PENSTOCK_KAFKA__SECURITY_PROTOCOL": "PLAINTEXT",
    }
