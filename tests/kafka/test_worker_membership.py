"""Static members on real Kafka: a restart is no rebalance, and two workers never share an instance id."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(150)

# The machine that runs the tests may be busy.
SESSION_S = 40.0
OTHER_HOST = "import socket\nsocket.gethostname = lambda: 'elsewhere'\n"


def make_lab(kafka: KafkaLab, tmp_path: Path, **worker: float) -> WorkerLab:
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.02}], worker=worker)
    lab.create_topics()
    return lab


def static(lab: WorkerLab, name: str, **env: str) -> ChildProcess:
    """Return a static member, not started yet."""
    variables = {"PENSTOCK_WORKER__INSTANCE_ID": name, **env}
    return ChildProcess("streams", "worker", "--config", str(lab.config), env=variables, grace_s=15)


def without_lock(tmp_path: Path) -> dict[str, str]:
    """Return what hides the lock file of this host, as a container does."""
    folder = tmp_path / "tmp"
    folder.mkdir(exist_ok=True)
    return {"TMPDIR": str(folder)}


def on_another_host(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(OTHER_HOST, encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path), **without_lock(tmp_path)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_static_member_restarts_without_waiting_for_its_session_and_the_others_see_no_rebalance(
    kafka: KafkaLab, tmp_path: Path, number: signal.Signals
) -> None:
    """With SIGTERM: nobody leaves the group at the end. Alone on the machine a restart takes 2.2 s (docs/faust.md)."""
    lab = make_lab(kafka, tmp_path, session_timeout_s=SESSION_S)
    with static(lab, "a") as first, static(lab, "b") as other:
        wait_for_partitions(first)
        wait_for_partitions(other)
        eventually(lambda: _is_settled(first, other), within_s=30)
        seen = _rebalances(other)
        first.signal(number)
        first.wait(20)
        lab.send(0, 50)
        started_s = time.monotonic()
        with static(lab, "a") as again, Outcomes(kafka, lab.topics.results) as results:
            wait_for_partitions(again)
            took_s = time.monotonic() - started_s
            tally = results.wait_for(50)

            assert took_s < SESSION_S / 2
            assert _rebalances(other) == seen
            assert (tally.lost(50), tally.duplicates) == ([], [])


def test_a_second_worker_with_the_same_instance_id_is_refused_and_the_first_goes_on(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    lab = make_lab(kafka, tmp_path)
    with static(lab, "a") as first:
        wait_for_partitions(first)
        with static(lab, "a") as twin:
            assert twin.wait(20) == 2
        lab.send(0, 50)
        with Outcomes(kafka, lab.topics.results) as results:
            tally = results.wait_for(50)

        assert f"worker.instance_id a is taken in group {lab.prefix}: process {first.pid} on this host" in twin.output
        assert (tally.duplicates, _rebalances(first)) == ([], 1)


@pytest.mark.long
def test_a_twin_on_another_host_is_refused_when_the_first_outlives_its_session(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = make_lab(kafka, tmp_path)
    with static(lab, "a") as first:
        wait_for_partitions(first)
        with static(lab, "a", **on_another_host(tmp_path)) as twin:
            assert twin.wait(40) == 2

        assert "is taken in group" in twin.output
        assert _rebalances(first) == 1


def test_a_worker_that_moved_to_another_host_begins_when_its_old_session_is_over(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    lab = make_lab(kafka, tmp_path)
    with static(lab, "a") as first:
        wait_for_partitions(first)
        first.signal(signal.SIGTERM)

        assert first.wait(20) == 0
    with static(lab, "a", **on_another_host(tmp_path)) as moved:
        moved.wait_for("instance.waiting")
        wait_for_partitions(moved)


def test_a_worker_whose_place_a_twin_took_ends_and_does_not_fight(kafka: KafkaLab, tmp_path: Path) -> None:
    """Two containers with one host name see no lock of each other."""
    lab = make_lab(kafka, tmp_path)
    with static(lab, "a") as first:
        wait_for_partitions(first)
        with static(lab, "a", **without_lock(tmp_path)) as twin:
            assert first.wait(30) == 2
            wait_for_partitions(twin)
            lab.send(0, 50)
            with Outcomes(kafka, lab.topics.results) as results:
                tally = results.wait_for(50)

            assert "worker.instance_id a is taken" in first.output
            assert (tally.lost(50), tally.duplicates, _rebalances(twin)) == ([], [], 1)


def test_a_static_member_that_was_frozen_past_its_session_comes_back(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = make_lab(kafka, tmp_path)
    with static(lab, "a") as frozen, static(lab, "b") as other:
        wait_for_partitions(frozen)
        wait_for_partitions(other)
        eventually(lambda: _is_settled(frozen, other), within_s=30)
        before, everything = _rebalances(frozen), _held(frozen) | _held(other)
        frozen.signal(signal.SIGSTOP)
        eventually(lambda: _held(other) == everything, within_s=40)
        frozen.signal(signal.SIGCONT)
        wait_for_partitions(frozen, before + 1)
        eventually(lambda: _is_settled(frozen, other), within_s=30)


def _rebalances(process: ChildProcess) -> int:
    return process.output.count("partitions.assigned")


def _held(process: ChildProcess) -> set[tuple[str, int]]:
    """Return what partitions a worker has by its last assignment."""
    lines = [line for line in process.output.splitlines() if '"partitions.assigned"' in line]
    found = json.loads(lines[-1])["partitions"] if lines else {}
    return {(topic, partition) for topic, partitions in found.items() for partition in partitions}


def _is_settled(one: ChildProcess, other: ChildProcess) -> bool:
    """Tell whether two workers share everything that is subscribed to."""
    first, second = _held(one), _held(other)
    topics = {topic for topic, _ in first | second}
    return bool(first and second) and not first & second and len(first | second) == len(topics) * PARTITIONS


def test_a_session_that_the_broker_does_not_allow_is_told_with_its_limits(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = make_lab(kafka, tmp_path, session_timeout_s=1801)
    with lab.worker() as worker:
        worker.wait_for(r"session_timeout_s is 1801, the broker allows 1 to 1800 \(.*group\.refused", 40)

        assert worker.process.poll() is None
