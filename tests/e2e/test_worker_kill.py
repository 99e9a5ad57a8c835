"""The promise that matters: whatever happens to the worker, every accepted event has one outcome, in order, paid once.

Signed webhooks go through the real gateway to a real Kafka; the worker that calls a model server is killed three times
while its calls run. Blocking: about a minute, bounded by the timeout below.
"""

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from contracts.codec import source_position
from tests.kafka.worker_lab import Outcomes, WorkerLab, headers_of
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ROOT, ChildProcess, eventually, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

EVENTS = 5000
KILLS = 3
SEED = int(os.environ.get("PENSTOCK_TEST_SEED", "20261124"))
# The sample events are about so many opportunities, and an opportunity has one event at work at a time.
KEYS = 40
SECRET = "end-to-end-test-secret-0123456789"


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    """Give a model server that takes about 70 ms for an answer."""
    port_file = tmp_path / "stub.port"
    options = ("--latency", "0.07", "--latency-sigma", "0.2", "--seed", str(SEED), "--port-file", str(port_file))
    with ChildProcess("streams", "fm-stub", *options):
        yield Stub(f"http://127.0.0.1:{read_port(port_file)}")


@pytest.fixture
def lab(kafka: KafkaLab, tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> WorkerLab:
    """Give an installation with the working example's Salesforce source."""
    monkeypatch.setenv("PENSTOCK_SECRET_SALESFORCE", SECRET)
    sources = yaml.safe_load((ROOT / "penstock.yaml").read_text("utf-8"))["sources"]
    made = WorkerLab(
        kafka,
        tmp_path,
        provider={"kind": "openai", "base_url": f"{stub.url}/v1"},
        worker={"max_in_flight": 64, "commit_interval_s": 1},
        more={"sources": {"salesforce": sources["salesforce"]}, "logging": {"level": "warning"}},
    )
    made.create_topics()
    return made


@pytest.fixture
def gateway(lab: WorkerLab, tmp_path: Path) -> Iterator[str]:
    """Give the address of a running gateway."""
    port_file = tmp_path / "gateway.port"
    options = ("--config", str(lab.config), "--port-file", str(port_file))
    with ChildProcess("gateways.cli", "gateway", *options, env={"PENSTOCK_GATEWAY__PORT": "0"}):
        yield f"http://127.0.0.1:{read_port(port_file)}"


def disorder(outcomes: Outcomes) -> list[tuple[bytes | None, int]]:
    """Return key and offset of events that ended before an earlier one of their key."""
    newest: dict[tuple[bytes | None, int], int] = {}
    found = []
    for message in outcomes.messages:
        answered = source_position(headers_of(message))
        assert answered is not None
        position = answered[1]
        chain = (message.key(), position.partition)
        if position.offset < newest.get(chain, -1):
            found.append((chain[0], position.offset))
        newest[chain] = max(position.offset, newest.get(chain, -1))
    return found


def wait_until_busy(outcomes: Outcomes, results: int, stub: Stub) -> None:
    """Return once there are so many results and a call is in flight."""
    eventually(lambda: len(outcomes.read().by_id) >= results and stub.stats()["in_flight"] > 0, within_s=60)


@pytest.mark.long
def test_a_worker_killed_under_load_loses_repeats_and_reorders_nothing_and_pays_once(
    lab: WorkerLab, stub: Stub, gateway: str, tmp_path: Path
) -> None:
    ids_file = tmp_path / "accepted.csv"
    dice = random.Random(SEED)  # noqa: S311 - a seeded test
    moments = sorted(dice.sample(range(EVENTS // 10, EVENTS * 8 // 10), KILLS))
    options = ("--source", "salesforce", "--count", str(EVENTS), "--concurrency", "40", "--seed", str(SEED))
    target = ("--url", gateway, "--config", str(lab.config), "--ids-file", str(ids_file))
    with (
        Outcomes(lab.kafka, lab.topics.results) as outcomes,
        ChildProcess("gateways.cli", "send", *options, *target) as send,
    ):
        for moment in moments:
            with lab.worker() as worker:
                wait_until_busy(outcomes, moment, stub)
                worker.signal(signal.SIGKILL)
        with lab.worker():
            assert send.wait(60) == 0, send.output
            accepted = [line.partition(",")[0] for line in ids_file.read_text("utf-8").splitlines()]
            tally = outcomes.wait_for(len(accepted), within_s=90)

    extra = stub.calls - len(accepted)
    assert len(set(accepted)) == EVENTS
    assert tally.by_id == Counter(accepted)
    assert disorder(outcomes) == []
    assert 0 <= extra <= KILLS * KEYS, f"seed {SEED}: {extra} calls were made again"
