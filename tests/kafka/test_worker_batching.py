"""A worker that packs events into calls, on real Kafka: all promises hold, with a fraction of the calls."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.worker_lab import STATIC, Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ChildProcess, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]
EVENTS = 800
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ROUTE = {"output_schema": SCHEMA, "batch": {"kind": "pack", "max_events": 8, "max_wait_s": 0.05, "max_calls": 8}}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with ChildProcess("streams", "fm-stub", "--port", "0", "--latency", "0.1") as process:
        yield Stub(process.wait_for(r"^listening on (http://\S+)$")[1])


def lab_of(kafka: KafkaLab, folder: Path, stub: Stub) -> WorkerLab:
    provider = {"kind": "openai", "base_url": f"{stub.url}/v1"}
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
    kafka: KafkaLab, tmp_path: Path, stub: Stub
) -> None:
    lab = lab_of(kafka, tmp_path, stub)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        tally = results.wait_for(EVENTS)
        eventually(lambda: sum(lab.committed().values()) == EVENTS, within_s=10)

    assert (tally.lost(EVENTS), tally.duplicates, tally.disorder) == ([], [], [])
    assert strangers(results) == []
    assert stub.calls <= EVENTS / 4


def test_a_kill_in_the_middle_of_packed_calls_loses_repeats_and_reorders_nothing(
    kafka: KafkaLab, tmp_path: Path, stub: Stub
) -> None:
    lab = lab_of(kafka, tmp_path, stub)
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
