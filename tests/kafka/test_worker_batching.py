"""A worker that makes calls for several events, on real Kafka: all promises hold, with a fraction of the calls."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.worker_lab import STATIC, Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ChildProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]
EVENTS = 800
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
BATCH = {"max_events": 8, "max_wait_s": 0.05, "max_calls": 8}
ROUTES: dict[str, dict[str, Any]] = {
    "pack": {"output_schema": SCHEMA, "batch": {"kind": "pack", **BATCH}},
    "inputs": {"batch": {"kind": "inputs", **BATCH}},
}
TASKS = {"pack": "chat", "inputs": "completion"}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with ChildProcess("streams", "fm-stub", "--port", "0", "--latency", "0.1") as process:
        yield Stub(process.wait_for(r"^listening on (http://\S+)$")[1])


def lab_of(kafka: KafkaLab, folder: Path, stub: Stub, kind: str) -> WorkerLab:
    provider = {"kind": "openai", "base_url": f"{stub.url}/v1"}
    more = {"models": {"m": {"provider": "p", "model": "m-1", "task": TASKS[kind]}}}
    lab = WorkerLab(kafka, folder, provider=provider, route=ROUTES[kind], worker={"max_in_flight": 64}, more=more)
    lab.create_topics()
    lab.send(0, EVENTS)
    return lab


def strangers(results: Outcomes) -> list[str]:
    """Return what the terminal records say whose output is not the number of their own event."""
    said = [json.loads(message.value() or b"{}") for message in results.messages]
    wrong = [one for one in said if int(one["event_id"][1:]) != _number(one.get("output"))]
    return [f"{one['event_id']}: {one.get('reason')}: {one.get('message', one.get('output'))}" for one in wrong]


def _number(output: Any) -> int:
    """Return the number in an output, or in the text that a completion is."""
    found = re.search(r"[0-9]+", json.dumps(output))
    # The stand-in's completion leaves out what is zero.
    return int(found[0]) if found else 0


def paid_events(stub: Stub) -> int:
    """Return for how many events answers were paid: a pack has their number in its name, a list is billed by each."""
    billed = stub.stats()["billed_per_event"].items()
    return sum(times * (1 + int(name.partition("+")[2] or 0)) for name, times in billed)


@pytest.mark.parametrize("kind", ["pack", "inputs"])
def test_events_of_one_call_keep_order_get_their_own_outputs_and_need_a_fraction_of_the_calls(
    kafka: KafkaLab, tmp_path: Path, stub: Stub, kind: str
) -> None:
    lab = lab_of(kafka, tmp_path, stub, kind)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        tally = results.wait_for(EVENTS)
        eventually(lambda: sum(lab.committed().values()) == EVENTS, within_s=10)

    assert (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])
    assert strangers(results) == []
    assert paid_events(stub) == EVENTS
    # The stub counts each prompt of a list.
    assert kind == "inputs" or stub.calls <= EVENTS / 4


@pytest.mark.parametrize("kind", ["pack", "inputs"])
def test_a_kill_in_the_middle_of_calls_for_several_events_loses_repeats_and_reorders_nothing(
    kafka: KafkaLab, tmp_path: Path, stub: Stub, kind: str
) -> None:
    lab = lab_of(kafka, tmp_path, stub, kind)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.worker(**STATIC) as first:
            wait_for_partitions(first)
            eventually(lambda: len(results.read().by_id) >= EVENTS // 4, within_s=40)
            first.signal(signal.SIGKILL)
            first.wait(10)
        with lab.running(**STATIC):
            tally = results.wait_for(EVENTS)

    assert (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])
    assert strangers(results) == []
    # Paid twice is at most what was in calls at the moment of the kill.
    assert paid_events(stub) - EVENTS <= BATCH["max_calls"] * BATCH["max_events"]
