"""Rules for all tests: markers from folders, fixtures for real Kafka, and a report of what was skipped and why."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

pytest_plugins = ("tests.kafkalab.fixtures",)

HERE = Path(__file__).parent
GROUP_FOLDERS = frozenset({"kafka", "e2e", "compose", "browser"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that tests/groups.py uses to learn how a group ended."""
    parser.addoption("--outcome-file", type=Path, default=None, help="write the counts and skip reasons as JSON")


def pytest_configure() -> None:
    """Make SIGTERM end the run like Ctrl-C does, so that fixtures end what they started.

    A shell that starts the run in the background has SIGINT ignored, and what is ignored stays so in child processes:
    the programs under test would not hear their Ctrl-C.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and refuse a test that would start a real broker in the offline run."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in GROUP_FOLDERS:
            item.add_marker(folder)
        uses_kafka = "kafka_broker" in getattr(item, "fixturenames", ())
        if uses_kafka and not any(item.get_closest_marker(name) for name in GROUP_FOLDERS):
            msg = f"{item.nodeid} uses real Kafka: mark it with pytest.mark.kafka"
            raise pytest.UsageError(msg)


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
