"""The stack of docker-compose.yml, built and started: signed events from this machine in, results out, metrics seen."""

import csv
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from contracts.payloads import RESULT_TYPE
from contracts.topics import Topics
from tests.compose.stack import Stack, reason_to_skip
from tests.metrics.prometheus import Prometheus
from tests.support import eventually

# The first test pays for building and starting.
pytestmark = pytest.mark.timeout(1200)
SOURCES = ("salesforce", "github", "stripe", "support")
EVENTS_PER_SOURCE = 25
RESULTS_LIMIT_S = 90
METRICS_LIMIT_S = 60


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Start the stack, and take it down whatever happens."""
    reason = reason_to_skip()
    if reason:
        pytest.skip(reason)
    started = Stack()
    try:
        started.up()
        yield started
    finally:
        started.down()


@pytest.fixture(scope="module")
def accepted(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Send the events; return the status URL of each accepted one by its id."""
    urls: dict[str, str] = {}
    # One seed makes the same ids for two sources; they are different events then, but this test tells them by id alone.
    for seed, source in enumerate(SOURCES):
        file = tmp_path_factory.mktemp("ids") / f"{source}.csv"
        sent = stack.send(source, EVENTS_PER_SOURCE, seed, file)
        assert sent.returncode == 0, f"{sent.stdout}{sent.stderr}\n{stack.state()}"
        urls |= _rows(file)
    return urls


def _rows(file: Path) -> dict[str, str]:
    with file.open(encoding="utf-8", newline="") as lines:
        return {row[0]: row[1] for row in csv.reader(lines) if row[0] != "id"}


def _results(bootstrap: str, wanted: int) -> dict[str, str]:
    """Return the type of each terminal record on the result topic by the id of its event."""
    topic = Topics().results
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        found: dict[str, str] = {}

        def all_there() -> bool:
            for message in consumer.consume(200, timeout=1.0):
                headers = dict(cast("list[tuple[str, bytes]]", message.headers()))
                found[headers["ce_eventid"].decode()] = headers["ce_type"].decode()
            return len(found) >= wanted

        eventually(all_there, RESULTS_LIMIT_S)
        return found
    finally:
        consumer.close()


def test_every_event_sent_from_this_machine_ends_in_a_result(stack: Stack, accepted: dict[str, str]) -> None:
    results = _results(stack.bootstrap, len(accepted))

    assert len(accepted) == len(SOURCES) * EVENTS_PER_SOURCE
    assert results.keys() == accepted.keys()
    assert set(results.values()) == {RESULT_TYPE}


def test_the_status_url_of_a_webhook_answer_leads_to_the_result(stack: Stack, accepted: dict[str, str]) -> None:
    url = next(iter(accepted.values()))

    def succeeded() -> bool:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - the stack's own address
            return bool(json.load(answer)["status"] == "succeeded")

    assert url.startswith(stack.url("GATEWAY"))
    eventually(succeeded, RESULTS_LIMIT_S)


def test_the_command_line_of_this_machine_shows_the_stacks_results(stack: Stack, accepted: dict[str, str]) -> None:
    shown = stack.penstock("tail", "results", "--from-beginning", "--count", str(len(accepted)), "--json")

    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == len(accepted)


@pytest.mark.parametrize("service", ["gateway", "worker-2"])
def test_a_service_that_is_told_to_stop_ends_with_success(stack: Stack, service: str) -> None:
    assert stack.restart_cleanly(service) == "0"


def test_our_containers_run_as_nobody_without_a_compiler_and_workers_know_no_webhook_secret(stack: Stack) -> None:
    assert stack.inside("gateway", "id -u").strip() == "10001"
    assert stack.inside("gateway", "command -v gcc cc make").strip() == ""
    assert stack.inside("gateway", "ls -A /app").split() == ["examples", "penstock.yaml"]
    assert stack.inside("worker-1", "env | grep -c PENSTOCK_SECRET_").strip() == "0"


@pytest.mark.usefixtures("accepted")
def test_prometheus_sees_every_process(stack: Stack) -> None:
    prometheus = Prometheus(stack.url("PROMETHEUS"))
    up = {
        "penstock-gateway gateway:8080": "up",
        "penstock-worker worker-1:8081": "up",
        "penstock-worker worker-2:8081": "up",
        "prometheus localhost:9090": "up",
    }

    def all_up() -> bool:
        assert prometheus.targets() == up
        return True

    eventually(all_up, METRICS_LIMIT_S)


@pytest.mark.usefixtures("accepted")
def test_every_dashboard_query_is_answered_and_the_panels_show_the_work(stack: Stack) -> None:
    prometheus = Prometheus(stack.url("PROMETHEUS"))

    def drawn() -> bool:
        assert prometheus.panels_without_data() == []
        return True

    eventually(drawn, METRICS_LIMIT_S)


@pytest.mark.usefixtures("accepted")
def test_every_rule_can_be_evaluated_and_a_healthy_stack_raises_no_alert(stack: Stack) -> None:
    prometheus = Prometheus(stack.url("PROMETHEUS"))

    def evaluated() -> bool:
        return not prometheus.rules_with_health("unknown")

    eventually(evaluated, METRICS_LIMIT_S)
    assert prometheus.rules_with_health("err") == []
    assert prometheus.firing() == []
