"""Standstills of real workers on real Kafka: what the health page says, and `penstock why-stuck`."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.payloads import RESULT_TYPE
from contracts.topics import LANES
from streams.watchdog import KAFKA_SILENCE_S
from tests.kafka.worker_lab import Outcomes, WorkerLab, calls_in_flight, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ROOT, ChildProcess, eventually, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150)]
# Of a Faust that is not told another one; see short_poll_worker.py.
POLL_INTERVAL_S = 2.5


@pytest.fixture
def hanging_stub(tmp_path: Path) -> Iterator[str]:
    """Give the address of a model server that answers nobody."""
    port_file = tmp_path / "stub.port"
    with ChildProcess("streams", "fm-stub", "--error", "hang=1", "--port-file", str(port_file)):
        yield f"http://127.0.0.1:{read_port(port_file)}"


def address(worker: ChildProcess) -> str:
    return worker.wait_for(r"worker health on (\S+)")[1]


def get(worker: ChildProcess, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{address(worker)}{path}", timeout=5) as answer:  # noqa: S310 - the worker's page
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    except (TimeoutError, urllib.error.URLError) as error:
        # Who polls asks again: of a thousand questions on a busy machine one may take longer.
        message = f"no answer to {path} within 5 s"
        raise AssertionError(message) from error


def alert_worker(lab: WorkerLab) -> ChildProcess:
    """Return a worker that asks its brokers every 4 s, not every 10; see there."""
    return ChildProcess("tests.kafka.alert_worker", "worker", "--config", str(lab.config), grace_s=15)


def why_stuck(lab: WorkerLab, *options: str) -> tuple[int, str]:
    """Run the real command line."""
    args = (sys.executable, "-m", "gateways.cli", "why-stuck", "--config", str(lab.config), *options)
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_calls_that_hang_are_named_with_key_and_follower_and_the_worker_stays_alive(
    kafka: KafkaLab, tmp_path: Path, hanging_stub: str
) -> None:
    lab = WorkerLab(
        kafka,
        tmp_path,
        provider={"kind": "openai", "base_url": f"{hanging_stub}/v1"},
        worker={"max_in_flight": 1, "max_ready_keys": 50, "drain_timeout_s": 1},
    )
    lab.create_topics()
    lab.send(0, 2, keys=1)
    with lab.running() as worker:
        eventually(lambda: calls_in_flight(worker) >= 1, within_s=30)
        lab.send(2, 20, keys=20)
        eventually(lambda: get(worker, "/stuck")[1]["events"].get("queued") == 21, within_s=20)
        code, text = why_stuck(lab, "--worker", address(worker), "--older-than", "0")
        report = json.loads(why_stuck(lab, "--worker", address(worker), "--json")[1])["workers"][0]["report"]

        assert code == 1
        assert re.search(r"STUCK .*event e0 \(key k0, route r, offset 0\) is in a model call", text)
        oldest = {part["oldest"]["event_id"]: part["oldest"] for part in report["partitions"] if part["oldest"]}
        assert oldest["e0"]["state"] == "calling"
        assert {one["state"] for name, one in oldest.items() if name != "e0"} == {"waiting_slot"}
        assert get(worker, "/healthz") == (200, {"status": "ok", "problems": []})


@pytest.mark.long
def test_records_that_wait_for_room_are_no_standstill(kafka: KafkaLab, tmp_path: Path, hanging_stub: str) -> None:
    """They are fetched, and nobody takes them for longer than the watchdog lets what nothing explains last."""
    limits = {"lanes": ["standard"], "max_in_flight": 1, "max_held_events": 10, "watchdog": {"progress_timeout_s": 1}}
    lab = WorkerLab(kafka, tmp_path, provider={"kind": "openai", "base_url": f"{hanging_stub}/v1"}, worker=limits)
    create_single_partitions(lab)
    lab.send(0, 3000, keys=1)
    with lab.worker() as worker:
        wait_for_partitions(worker)
        eventually(lambda: calls_in_flight(worker) == 1, within_s=20)
        eventually(lambda: get(worker, "/stuck")[1]["idle_s"] > KAFKA_SILENCE_S + 15, within_s=60)
        report = get(worker, "/stuck")[1]

    assert report["problems"] == []
    [events] = (part for part in report["partitions"] if part["topic"] == lab.events)
    assert events["position"] < events["end"] == 3000
    assert events["stands_by"] == ""


def test_a_closed_gate_is_named_and_fails_no_probe(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"error": "access_denied"}], worker={"watchdog": {"progress_timeout_s": 1}})
    lab.create_topics()
    lab.send(0, 20)
    with lab.running() as worker:
        eventually(lambda: get(worker, "/stuck")[1]["paused_routes"], within_s=30)
        eventually(lambda: get(worker, "/stuck")[1]["idle_s"] > 3, within_s=30)
        code, text = why_stuck(lab, "--worker", address(worker))

        assert code == 1
        assert "route r is paused: access_denied\n      -> credentials or policy" in text
        assert "the paused route above" in text
        assert get(worker, "/healthz")[0] == 200


@pytest.mark.parametrize("kind", ["access_denied", "unavailable"])
def test_a_gate_that_was_closed_opens_by_itself_and_no_event_is_a_dead_letter(
    kafka: KafkaLab, tmp_path: Path, kind: str
) -> None:
    """A key that was taken away and given back, and an outage: nobody restarts anything."""
    with ChildProcess("streams", "fm-stub", "--port", "0", "--error", f"{kind}=1") as process:
        stub = Stub(process.wait_for(r"^listening on (http://\S+)$")[1])
        lab = WorkerLab(kafka, tmp_path, provider={"kind": "openai", "base_url": f"{stub.url}/v1"})
        lab.create_topics()
        lab.send(0, 200)
        with Outcomes(kafka, lab.topics.results) as results, lab.running() as worker:
            eventually(lambda: get(worker, "/stuck")[1]["paused_routes"], within_s=30)
            assert results.read().by_id == {}
            stub.set_knobs(error_rates={})
            tally = results.wait_for(200)
            eventually(lambda: not get(worker, "/stuck")[1]["paused_routes"], within_s=10)

    assert (tally.lost(200), tally.duplicates, tally.disorder) == ([], [], [])
    assert set(tally.kinds) == {RESULT_TYPE}


def test_nothing_is_stuck_when_everything_is_finished(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 20)
    with alert_worker(lab) as worker, Outcomes(kafka, lab.topics.results) as results:
        results.wait_for(20)
        eventually(lambda: all(part["lag"] == 0 for part in get(worker, "/stuck")[1]["partitions"]), within_s=20)
        code, text = why_stuck(lab, "--worker", address(worker))

    assert (code, "STUCK" in text) == (0, False)


def test_without_a_worker_the_group_and_the_record_at_the_commit_point_are_named(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 100)
    with lab.running() as worker, Outcomes(kafka, lab.topics.results) as results:
        results.wait_for(100)
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    assert why_stuck(lab)[0] == 0
    lab.send(100, 1)
    code, text = why_stuck(lab)

    assert code == 1
    assert "no worker is in the group, and events wait" in text
    assert re.search(
        r"events\.standard\.v1/\d +\u2502 +\d+ +\u2502 +\d+ +\u2502 +1 +\u2502 +e100 +\u2502 +t +\u2502 +\d+ s", text
    ), text


def test_a_worker_that_is_stopped_is_said_not_to_answer(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    with lab.running() as worker:
        worker.signal(signal.SIGSTOP)
        code, text = why_stuck(lab, "--worker", address(worker))
        worker.signal(signal.SIGCONT)

        assert "no answer within 5 s: its event loop is stuck, or the process is stopped" in text
        assert code == 0
        assert "group" in text


def test_a_worker_without_its_topics_says_what_it_waits_for(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    with lab.worker() as worker:
        worker.wait_for("kafka.waiting")
        code, text = why_stuck(lab, "--worker", address(worker))

        assert code == 1
        assert f"waits: topic {lab.events} is missing" in text or f"{lab.events} is missing" in text
        assert get(worker, "/healthz")[0] == 200
        assert get(worker, "/readyz")[0] == 503


def test_a_worker_that_drains_is_alive_and_not_ready(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"hang": True}], worker={"drain_timeout_s": 8})
    lab.create_topics()
    lab.send(0, 5)
    with lab.running() as worker:
        eventually(lambda: calls_in_flight(worker) >= 1, within_s=30)
        worker.signal(signal.SIGTERM)
        worker.wait_for("worker.stopping")

        assert get(worker, "/healthz")[0] == 200
        assert get(worker, "/readyz") == (503, {"status": "failing", "problems": ["stopping"]})
        assert get(worker, "/stuck")[1]["state"] == "stopping"
        # What comes of a drain is tested elsewhere.
        worker.signal(signal.SIGKILL)


@pytest.mark.long
def test_a_worker_whose_kafka_is_gone_stays_alive_and_says_so(kafka: KafkaLab, tmp_path: Path) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("a given broker is not stopped")
    lab = WorkerLab(
        kafka, tmp_path, worker={"rebalance_timeout_s": 5, "drain_timeout_s": 2, "watchdog": {"rebalance_grace_s": 1}}
    )
    lab.create_topics()
    with alert_worker(lab) as worker:
        # One that has no place in the group yet is not ready without Kafka, with or without a warning.
        eventually(lambda: get(worker, "/readyz")[0] == 200, within_s=60)
        kafka.broker.pause()
        try:
            eventually(lambda: _is_without_kafka(worker), within_s=60)

            assert get(worker, "/healthz")[0] == 200
            eventually(lambda: "warnings" in get(worker, "/readyz")[1], within_s=5)
            status, ready = get(worker, "/readyz")
            assert status == 200
            assert ready["warnings"][0].startswith("kafka_unreachable: no broker has answered since 20")
        finally:
            kafka.broker.resume()
        eventually(lambda: get(worker, "/stuck")[1]["kafka_answers"], within_s=30)
        eventually(lambda: "warnings" not in get(worker, "/readyz")[1], within_s=5)


def _is_without_kafka(worker: ChildProcess) -> bool:
    report = get(worker, "/stuck")[1]
    return (report["kafka_answers"], report["lease"]) == (False, "stale")


def create_single_partitions(lab: WorkerLab) -> None:
    """Create the topics with one partition each, so that of two workers one has nothing to do."""
    topics = lab.topics
    lanes = [topics.events(lane) for lane in LANES]
    lab.kafka.create_named(*lanes, topics.dead_letters, topics.results, topics.retries, partitions=1)


def short_poll_worker(lab: WorkerLab) -> ChildProcess:
    env = {"TEST_POLL_INTERVAL_S": str(POLL_INTERVAL_S)}
    return ChildProcess("tests.kafka.short_poll_worker", "worker", "--config", str(lab.config), env=env, grace_s=15)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_an_idle_standby_takes_over_long_after_the_poll_interval(kafka: KafkaLab, tmp_path: Path) -> None:
    """There are two partitions to have, of events and of retries, so the third worker has none."""
    lab = WorkerLab(kafka, tmp_path, worker={"lanes": ["standard"]})
    create_single_partitions(lab)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(short_poll_worker(lab)) for _ in range(3)]
        for worker in workers:
            wait_for_partitions(worker)
        standby = eventually(lambda: _standby(workers), within_s=40)
        assert standby is not None
        # It never fetches, and so would leave the group for ever after the interval.
        eventually(lambda: get(standby, "/stuck")[1]["idle_s"] > 3 * POLL_INTERVAL_S, within_s=40)
        for active in workers:
            if active is not standby:
                active.signal(signal.SIGKILL)
        lab.send(0, 5)
        with Outcomes(kafka, lab.topics.results, partitions=1) as results:
            try:
                # The dead ones' session (6 s), a rebalance that they may have left half done (20 s), and the books.
                tally = results.wait_for(5, within_s=60)
            finally:
                sys.stdout.write(standby.output)

    assert (tally.lost(5), tally.duplicates) == ([], [])


def _standby(workers: list[ChildProcess]) -> ChildProcess | None:
    """Return the one worker without a partition, once the others have one each."""
    have = {worker: len(get(worker, "/stuck")[1]["partitions"]) for worker in workers}
    return min(workers, key=have.__getitem__) if sorted(have.values()) == [0, 1, 1] else None


@pytest.mark.long
def test_a_slow_agent_with_a_full_buffer_stays_in_the_group(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(
        kafka,
        tmp_path,
        [{"latency_s": 1}],
        worker={"lanes": ["standard"], "max_in_flight": 1, "max_held_events": 10, "drain_timeout_s": 2},
    )
    create_single_partitions(lab)
    lab.send(0, 2000, keys=1)
    with short_poll_worker(lab) as worker, Outcomes(kafka, lab.topics.results, partitions=1) as results:
        wait_for_partitions(worker)
        generation = eventually(lambda: get(worker, "/stuck")[1]["generation"] > 0 and get(worker, "/stuck")[1])
        # Its buffers are full from the first moment, so nothing is fetched for four times the interval.
        tally = results.wait_for(int(4 * POLL_INTERVAL_S), within_s=60)
        report = get(worker, "/stuck")[1]

        assert (report["generation"], report["lease"]) == (generation["generation"], "valid")
        assert "held_events" in report["paused"]
        assert worker.output.count("partitions.assigned") == 1
    assert (tally.duplicates, tally.disorder) == ([], [])
