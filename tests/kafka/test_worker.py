"""The worker on real Kafka: one outcome per event, whatever happens to workers, brokers and topics."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from confluent_kafka import Message

from contracts.codec import dead_letter
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, RESULT_TYPE
from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, calls_in_flight, headers_of, wait_for_partitions
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def outcomes(kafka: KafkaLab) -> Iterator[Callable[[WorkerLab], Outcomes]]:
    opened: list[Outcomes] = []

    def open_(lab: WorkerLab) -> Outcomes:
        opened.append(Outcomes(kafka, lab.topics.results))
        return opened[-1]

    yield open_
    for one in opened:
        one.__exit__()


def test_every_event_has_one_result_in_order_and_all_is_committed(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    lab.create_topics()
    lab.send(0, 500)
    results = outcomes(lab)
    with lab.running() as worker:
        tally = results.wait_for(500)
        eventually(lambda: sum(lab.committed().values()) == 500, within_s=10)
        worker.signal(signal.SIGTERM)

        assert worker.wait(20) == 0
    assert (tally.lost(500), tally.duplicates, tally.disorder) == ([], [], [])
    assert tally.kinds == {RESULT_TYPE: 500}


def test_poison_among_good_events_ends_as_dead_letters_with_their_bytes(kafka: KafkaLab, tmp_path: Path) -> None:
    from confluent_kafka import Producer

    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 20)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    poison = [
        (b"\xff", b"\x00\xff", [("ce_id", b"x"), ("ce_id", b"y"), ("foreign", b"\x01")]),
        (b"k1", None, [("foreign", b"tombstone")]),
        (None, b"", []),
    ]
    for key, value, headers in poison:
        producer.produce(lab.events, key=key, value=value, headers=list(headers))
    producer.produce(lab.events, b"old", key=b"k2", timestamp=1, headers=[("foreign", b"old")])
    assert producer.flush(10) == 0
    lab.send(20, 20)
    with (
        Outcomes(kafka, lab.topics.results) as results,
        Outcomes(kafka, lab.topics.dead_letters) as letters,
        lab.running(),
    ):
        tally = results.wait_for(44)
        eventually(lambda: letters.read() is not None and len(letters.messages) >= 4, within_s=10)

    found = {(m.key(), m.value()): headers_of(m) for m in letters.messages}
    assert set(found) == {(b"\xff", b"\x00\xff"), (b"k1", None), (None, b""), (b"k2", b"old")}
    assert found[b"\xff", b"\x00\xff"][:-1] == [("ce_id", b"x"), ("ce_id", b"y"), ("foreign", b"\x01")]
    assert {dead_letter(headers).reason for headers in found.values()} == {"undecodable"}
    assert tally.kinds == {RESULT_TYPE: 40, DEAD_LETTER_MARKER_TYPE: 4}


@pytest.mark.long
def test_workers_that_join_leave_and_are_killed_lose_repeat_and_reorder_nothing(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.25}])
    lab.create_topics()
    lab.send(0, 4000)
    results = outcomes(lab)

    def a_while() -> int:
        """Return the number of results after some more of them."""
        before = len(results.read().by_id)
        return eventually(lambda: len(results.read().by_id) > before + 300 and len(results.tally.by_id), within_s=40)

    with lab.running() as first, lab.worker() as second:
        wait_for_partitions(second)
        a_while()
        first.signal(signal.SIGKILL)
        a_while()
        with lab.running():
            a_while()
            second.signal(signal.SIGTERM)

            assert second.wait(20) == 0
            # All of it happened under load.
            assert a_while() < 4000
            tally = results.wait_for(4000)

    assert (tally.lost(4000), tally.duplicates, tally.disorder) == ([], [], [])


@pytest.mark.long
def test_a_worker_that_was_frozen_past_its_session_sends_only_what_its_producer_held(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    """What was in the producer's buffer at the freeze goes out at the wake-up, before any code of ours runs.

    docs/pay-once.md, "Where it does not reach". Such an event ended in the moment before the freeze; without the
    lease, answers to calls that were in flight at the freeze would be sent as well, and those end after it.
    """
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.2}])
    lab.create_topics()
    lab.send(0, 1500)
    results = outcomes(lab)
    with lab.running() as zombie:
        eventually(lambda: len(results.read().by_id) >= 200, within_s=40)
        zombie.signal(signal.SIGSTOP)
        frozen_at_s = time.time()
        with lab.running():
            eventually(lambda: len(results.read().by_id) >= 600, within_s=40)
            zombie.signal(signal.SIGCONT)
            wait_for_partitions(zombie, times=2)
            tally = results.wait_for(1500)

    assert (tally.lost(1500), tally.disorder) == ([], [])
    earliest = {name: min(ended_at_s(m) for m in results.messages if id_of(m) == name) for name in tally.duplicates}
    assert {name: end - frozen_at_s for name, end in earliest.items() if end > frozen_at_s + _SLACK_S} == {}
    assert {name: end - frozen_at_s for name, end in earliest.items() if end < frozen_at_s - _LINGER_S - _SLACK_S} == {}


# The default of producer.linger_s; and what a record may take from its time stamp into the broker's log.
_LINGER_S = 0.005
_SLACK_S = 0.15


def id_of(message: Message) -> str:
    return dict(headers_of(message))["ce_eventid"].decode()


def ended_at_s(message: Message) -> float:
    """Return when an event ended, as its terminal record says."""
    value: dict[str, str] = json.loads(message.value() or b"")
    return datetime.fromisoformat(value["completed_at"]).timestamp()


@pytest.mark.long
def test_sigterm_finishes_what_has_started_and_commits_it(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 2}])
    lab.create_topics()
    lab.send(0, 100, keys=100)
    results = outcomes(lab)
    with lab.running() as worker:
        eventually(lambda: len(results.read().by_id) >= 1, within_s=30)
        written, started = len(results.read().by_id), calls_in_flight(worker)
        worker.signal(signal.SIGTERM)

        assert worker.wait(20) == 0
    finished = len(results.wait_for(1).by_id)

    assert started > 0
    assert written + started <= finished < 100
    assert '"held"' in worker.output
    with lab.running():
        tally = results.wait_for(100)

    assert (tally.lost(100), tally.duplicates, tally.disorder) == ([], [], [])


def test_a_second_sigterm_ends_at_once(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"hang": True}], worker={"rebalance_timeout_s": 120, "drain_timeout_s": 60})
    lab.create_topics()
    lab.send(0, 10)
    with lab.running() as worker:
        # A worker with nothing in flight is gone before a second signal could find it.
        eventually(lambda: calls_in_flight(worker) >= 1, within_s=30)
        worker.signal(signal.SIGTERM)
        worker.wait_for("worker.stopping")

        assert worker.insist(signal.SIGTERM, within_s=3) == 1
        assert "second signal" in worker.output


def test_a_drain_that_takes_too_long_is_cut_and_its_events_are_done_by_the_next_worker(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"times": 10, "hang": True}], worker={"drain_timeout_s": 1})
    lab.create_topics()
    lab.send(0, 50)
    results = outcomes(lab)
    with lab.running() as worker:
        eventually(lambda: len(results.read().by_id) >= 30, within_s=30)
        worker.signal(signal.SIGTERM)

        assert worker.wait(15) == 0
    again = WorkerLab(kafka, tmp_path)
    with again.running():
        tally = results.wait_for(50)

    assert (tally.lost(50), tally.duplicates, tally.disorder) == ([], [], [])


def test_an_operators_offset_reset_does_everything_again(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 100)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running() as worker:
            results.wait_for(100)
            worker.signal(signal.SIGTERM)
            worker.wait(20)
        lab.reset_offsets()
        with lab.running():
            eventually(lambda: results.read().by_id.total() >= 200, within_s=40)

        assert set(results.tally.by_id.values()) == {2}


def test_a_restart_without_a_reset_does_nothing_again(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    lab.send(0, 100)
    results = outcomes(lab)
    with lab.running():
        results.wait_for(100)
    with lab.running():
        lab.send(100, 1)
        tally = results.wait_for(101)

    assert tally.by_id.total() == 101


@pytest.mark.long
def test_a_broker_restart_is_survived(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("a given broker is not restarted")
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.05}])
    lab.create_topics()
    lab.send(0, 1500)
    results = outcomes(lab)
    with lab.running() as worker:
        eventually(lambda: len(results.read().by_id) >= 200, within_s=40)
        kafka.broker.kill()
        kafka.broker.start()
        tally = results.wait_for(1500, within_s=90)

        assert worker.process.poll() is None
    assert (tally.lost(1500), tally.duplicates, tally.disorder) == ([], [], [])


def test_a_worker_that_is_there_before_its_topics_says_what_it_waits_for_and_begins_when_they_appear(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    lab = WorkerLab(kafka, tmp_path)
    with lab.worker() as worker:
        worker.wait_for(f"{lab.events} is missing")
        lab.create_topics()
        lab.send(0, 10)
        tally = outcomes(lab).wait_for(10)

    assert tally.lost(10) == []


@pytest.mark.long
def test_a_worker_that_is_there_before_kafka_begins_when_it_answers(
    kafka: KafkaLab, tmp_path: Path, outcomes: Callable[[WorkerLab], Outcomes]
) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("a given broker is not stopped")
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics()
    kafka.broker.stop()
    with lab.worker() as worker:
        worker.wait_for("kafka.waiting")
        kafka.broker.start()
        lab.send(0, 10)
        tally = outcomes(lab).wait_for(10)

        assert worker.process.poll() is None
    assert tally.lost(10) == []


def test_a_worker_that_waits_for_kafka_stops_on_sigterm(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    with lab.worker() as worker:
        worker.wait_for("kafka.waiting")
        worker.signal(signal.SIGTERM)

        assert worker.wait(15) == 0
        assert "Traceback" not in worker.output


def test_a_result_topic_with_too_few_partitions_is_refused_with_both_numbers(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path)
    lab.create_topics(results=2)
    with lab.worker() as worker:
        worker.wait_for(f"{lab.topics.results} has 2 partitions, but an event topic has 4")

        assert "partitions.assigned" not in worker.output


def test_faust_itself_commits_nothing(kafka: KafkaLab, tmp_path: Path) -> None:
    """The commit stays at the oldest unfinished event of its partition; Faust's own would pass it (upstream #606)."""
    lab = WorkerLab(kafka, tmp_path, [{"match": '"n": 0}', "hang": True}], worker={"drain_timeout_s": 1})
    lab.create_topics()
    lab.send(0, 101, keys=101)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        results.wait_for(100)
        eventually(lambda: sum(offset > 0 for offset in lab.committed().values()) == PARTITIONS - 1, within_s=10)

        assert min(lab.committed().values()) == 0
