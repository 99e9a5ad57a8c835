"""A worker that packs events into calls, on real Kafka: all promises hold, with a fraction of the calls."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.worker_lab import Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]
EVENTS = 800
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ROUTE = {"output_schema": SCHEMA, "batch": {"kind": "pack", "max_events": 8, "max_wait_s": 0.05, "max_calls": 8}}


@pytest.fixture
def stub() -> Iterator[str]:
    with ChildProcess("streams", "fm-stub", "--port", "0", "--latency", "0.1") as process:
        yield process.wait_for(r"^listening on (http://\S+)$")[1]


def calls_at(stub: str) -> int:
    with urllib.request.urlopen(f"{stub}/_stub/stats", timeout=10) as answer:  # noqa: S310 - our own server
        stats: dict[str, Any] = json.loads(answer.read())
    return int(stats["calls"])


def lab_of(kafka: KafkaLab, folder: Path, stub: str) -> WorkerLab:
    provider = {"kind": "openai", "base_url": f"{stub}/v1"}
    lab = WorkerLab(kafka, folder, provider=provider, route=ROUTE, worker={"max_in_flight": 64})
    lab.create_topics()
    lab.send(0, EVENTS)
    return lab


def strangers(results: Outcomes) -> list[str]:
    """Return what the terminal records say whose output is not the number of their own event."""
    said = [json.loads(message.value() or b"{}") for message in results.messages]
    wrong = [one for one in said if one.get("output") != {"n": int(one["event_id"][1:])}]
    return [f"{one['event_id']}: {one.get('reason')}: {one.get('message', one.get('output'))}" for one in wrong]


def test_packed_events_keep_order_get_their_own_outputs_and_need_a_fraction_of_the_calls(
    kafka: KafkaLab, tmp_path: Path, stub: str
) -> None:
    lab = lab_of(kafka, tmp_path, stub)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        tally = results.wait_for(EVENTS)
        eventually(lambda: sum(lab.committed().values()) == EVENTS, within_s=10)

    assert (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])
    assert strangers(results) == []
    assert calls_at(stub) <= EVENTS / 4


def test_a_kill_in_the_middle_of_packed_calls_loses_repeats_and_reorders_nothing(
    kafka: KafkaLab, tmp_path: Path, stub: str
) -> None:
    lab = lab_of(kafka, tmp_path, stub)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.worker() as first:
            wait_for_partitions(first)
            eventually(lambda: len(results.read().by_id) >= EVENTS // 4, within_s=40)
            first.signal(signal.SIGKILL)
            first.wait(10)
        with lab.running():
            tally = results.wait_for(EVENTS)

    assert (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])
    assert strangers(results) == []
