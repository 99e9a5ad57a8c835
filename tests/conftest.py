"""Rules for all tests: markers from folders, fixtures for real Kafka and AWS, and a report of what was skipped."""

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from contracts import logs
from tests.scheduling import ModuleScheduling

pytest_plugins = ("tests.kafkalab.fixtures", "tests.awslab.fixtures")

HERE = Path(__file__).parent
GROUP_FOLDERS = frozenset({"kafka", "e2e", "compose", "browser"})
GROUP_MARKS = GROUP_FOLDERS | {"process", "embedded"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that tests/groups.py uses to learn how a group ended."""
    parser.addoption("--outcome-file", type=Path, default=None, help="write the counts and skip reasons as JSON")
    parser.addoption("--where-file", type=Path, default=None, help="write which files have tests of which group")


def pytest_configure() -> None:
    """Make SIGTERM end the run like Ctrl-C does, so that fixtures end what they started.

    A shell that starts the run in the background has SIGINT ignored, and what is ignored stays so in child processes:
    the programs under test would not hear their Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no test's log set-up reach the next: a logger kept from one writes to a standard error that is gone."""
    monkeypatch.setattr(logs, "KEEP_LOGGERS", False)
    monkeypatch.setattr(logs, "REPETITIONS", logs.Repetitions())
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def ipv6_loopback() -> str:
    """Give ::1, where this machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no ::1: {error.strerror}")
    return "::1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and refuse a test that would start a real broker in the offline run."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in GROUP_FOLDERS:
            item.add_marker(folder)
        uses_kafka = "kafka_broker" in getattr(item, "fixturenames", ())
        if uses_kafka and not any(item.get_closest_marker(name) for name in GROUP_FOLDERS):
            msg = f"{item.nodeid} uses real Kafka: mark it with pytest.mark.kafka"
            raise pytest.UsageError(msg)
    # The long ones first, in the random order otherwise: one that begins last keeps a run waiting for it alone.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    # Of several test processes, which all collect the same, one writes.
    if config.option.where_file and getattr(config, "workerinput", {"workerid": "gw0"})["workerid"] == "gw0":
        _write_places(config.option.where_file, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ModuleScheduling | None:
    """Keep together what shares the programs of its module; xdist's own `loadgroup` does not with pytest 9.2."""
    return ModuleScheduling(config, log) if config.getoption("dist") == "loadgroup" else None


def _write_places(path: Path, items: list[pytest.Item]) -> None:
    places: dict[str, list[str]] = {}
    for item in items:
        file = str(item.path.relative_to(HERE.parent))
        for mark in {mark.name for mark in item.iter_markers()} & GROUP_MARKS:
            files = places.setdefault(mark, [])
            if file not in files[-1:]:
                files.append(file)
    path.write_text(json.dumps({mark: sorted(set(files)) for mark, files in places.items()}), encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the outcome file."""
    if config.option.outcome_file:
        outcome = {name: len(terminalreporter.stats.get(name, [])) for name in ("passed", "failed", "error", "skipped")}
        reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
        document = {**outcome, "reasons": dict(reasons)}
        config.option.outcome_file.write_text(json.dumps(document), encoding="utf-8")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").replace("\n", " ")
