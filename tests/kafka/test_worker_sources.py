"""Source topics as other programs write them: transactions, and header names that are not UTF-8."""

import asyncio
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Producer, TopicPartition

from contracts.codec import dead_letter, encode_event
from contracts.envelope import Event
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, EXPIRED_TYPE, RESULT_TYPE
from tests.kafka.worker_lab import PARTITIONS, STATIC, Outcomes, WorkerLab, headers_of
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, ask, eventually

pytestmark = pytest.mark.timeout(150)


def event(number: int) -> Event:
    return Event(id=f"e{number}", source="s", type="t", data=b"{}", extensions={"partitionkey": f"k{number % 20}"})


def send_in_transactions(lab: WorkerLab, groups: Iterable[tuple[range, bool]]) -> None:
    """Write each group in a transaction of its own; the flag says whether it is committed."""
    kafka = lab.kafka
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.name("tx"), "log_level": 0, "linger.ms": 0}
    )
    producer.init_transactions(15)
    for numbers, is_committed in groups:
        producer.begin_transaction()
        for number in numbers:
            sent = event(number)
            producer.produce(lab.events, key=sent.key, value=sent.data, headers=list(encode_event(sent)))
        assert producer.flush(15) == 0
        (producer.commit_transaction if is_committed else producer.abort_transaction)(15)


def lag(worker: ChildProcess, topic: str) -> float | None:
    """Return the sum of a topic's lags on a worker's metrics page; None before the first."""
    address = re.search(r"worker health on (\S+)", worker.output)
    assert address is not None
    text = ask(f"{address[1]}/metrics").decode()
    found = re.findall(rf'^penstock_kafka_consumer_lag_records\{{.*topic="{topic}".*\}} (\S+)$', text, re.MULTILINE)
    return sum(map(float, found)) if found else None


def test_aborted_records_are_not_processed_and_the_lag_ends_at_0(kafka: KafkaLab, tmp_path: Path) -> None:
    """The partitions end with markers and aborted records, which nobody is ever given."""
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    lab.create_topics()
    groups = [(range(n, n + 20), n % 60 != 0) for n in range(0, 600, 20)]
    send_in_transactions(lab, [*groups, (range(600, 640), False)])
    committed = {f"e{n}" for numbers, is_committed in groups if is_committed for n in numbers}
    with Outcomes(kafka, lab.topics.results) as results, lab.running() as worker:
        tally = results.wait_for(len(committed))
        eventually(lambda: lag(worker, lab.events) == 0.0, within_s=15)
        worker.signal(signal.SIGTERM)

        assert worker.wait(20) == 0
    assert (set(tally.by_id), tally.duplicates) == (committed, [])


def test_live_transactions_are_processed_while_an_open_one_is_waited_for(kafka: KafkaLab, tmp_path: Path) -> None:
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    lab.create_topics()
    config = {"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.name("open"), "log_level": 0}
    producer = Producer(config)
    producer.init_transactions(15)
    with Outcomes(kafka, lab.topics.results) as results, lab.running():
        send_in_transactions(lab, [(range(20), True), (range(20, 40), False)])
        results.wait_for(20)
        producer.begin_transaction()
        for number in range(40, 60):
            sent = event(number)
            producer.produce(lab.events, key=sent.key, value=sent.data, headers=list(encode_event(sent)))
        assert producer.flush(15) == 0
        lab.send(60, 20)

        assert len(results.wait_for(20).by_id) == 20

        producer.commit_transaction(15)
        tally = results.wait_for(60)

    assert set(tally.by_id) == {f"e{n}" for n in (*range(20), *range(40, 80))}
    assert tally.duplicates == []


def test_events_that_were_deleted_before_they_were_read_are_told_and_all_others_are_done(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """After their retention, as when no worker ran for that long."""
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    lab.create_topics()
    lab.send(0, 200)
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running():
            results.wait_for(200)
            eventually(lambda: sum(lab.committed().values()) == 200, within_s=10)
        lab.send(200, 200)
        begins = [TopicPartition(lab.events, number, end - 5) for number, end in lab.ends().items()]
        for deleted in kafka.admin().delete_records(begins).values():
            deleted.result(15)
        with lab.running() as worker:
            tally = results.wait_for(200 + 5 * PARTITIONS)
            eventually(lambda: sum(lab.committed().values()) == 400, within_s=10)
            told = re.findall(r'"records":(\d+),.*"event":"log\.deleted"', worker.output)

    assert (len(told), sum(map(int, told))) == (PARTITIONS, 200 - 5 * PARTITIONS)
    assert (len(tally.by_id), tally.duplicates) == (200 + 5 * PARTITIONS, [])


class BrokenName(str):
    """A header name that goes out as bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, _encoding: str = "utf-8", _errors: str = "strict") -> bytes:
        return b"\xffname"


async def send_broken(
    kafka: KafkaLab, topic: str, records: Iterable[tuple[bytes, list[tuple[str, bytes]]]], compression: str | None
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=200, compression_type=compression)
    await producer.start()
    try:
        sent = [await producer.send(topic, value, headers=headers, partition=1) for value, headers in records]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


@pytest.mark.parametrize("compression", [None, "lz4"])
def test_a_header_name_that_is_not_utf_8_ends_as_a_dead_letter_and_stops_nobody(
    kafka: KafkaLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str | None
) -> None:
    # The fast builder encodes names itself.
    monkeypatch.setattr("aiokafka.producer.producer.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    monkeypatch.setattr(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    lab.create_topics()
    good = [(b"{}", list(encode_event(event(n)))) for n in range(40)]
    bad = [(b"bad", [("foreign", b"1"), (BrokenName("x"), b"2")])]
    asyncio.run(send_broken(kafka, lab.events, [*good[:20], *bad, *good[20:]], compression))
    with Outcomes(kafka, lab.topics.results) as results, Outcomes(kafka, lab.topics.dead_letters) as letters:
        with lab.running():
            results.wait_for(41)
            eventually(lambda: letters.read() is not None and len(letters.messages) >= 1, within_s=10)
            eventually(lambda: sum(lab.committed().values()) == 41, within_s=10)
        lab.send(40, 1)
        # The next start reads once more what lies before the commit points.
        with lab.running():
            tally = results.wait_for(42)

    (letter,) = letters.messages
    assert (letter.value(), headers_of(letter)[:2]) == (b"bad", [("foreign", b"1"), ("\\xffname", b"2")])
    assert dead_letter(headers_of(letter)).reason == "undecodable"
    assert (tally.kinds, tally.duplicates) == ({RESULT_TYPE: 41, DEAD_LETTER_MARKER_TYPE: 1}, [])


def test_a_replay_of_old_events_does_them_again_also_when_a_kill_comes_in_between(
    kafka: KafkaLab, tmp_path: Path
) -> None:
    """Their deadline was over an hour ago, and all of them have expired; after the reset it counts from the intake."""
    settings = {"max_in_flight": 2}
    lab = WorkerLab(kafka, tmp_path, [{"latency_s": 0.2}], route={"deadline_s": 60}, worker=settings)
    lab.create_topics()
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    hour_ago_ms = int(time.time() - 3600) * 1000
    for sent in map(event, range(40)):
        producer.produce(
            lab.events, key=sent.key, value=sent.data, headers=list(encode_event(sent)), timestamp=hour_ago_ms
        )
    assert producer.flush(15) == 0
    with Outcomes(kafka, lab.topics.results) as results:
        with lab.running() as worker:
            assert results.wait_for(40).kinds == {EXPIRED_TYPE: 40}
            worker.signal(signal.SIGTERM)
            assert worker.wait(20) == 0
        lab.reset_offsets()
        with lab.running(**STATIC) as worker:
            eventually(lambda: results.read().kinds[RESULT_TYPE] >= 10, within_s=30)
            eventually(lambda: sum(lab.committed().values()) > 0)
            worker.signal(signal.SIGKILL)
            worker.wait(10)
        with lab.running(**STATIC):
            eventually(lambda: results.read().kinds[RESULT_TYPE] >= 40, within_s=40)
            tally = results.wait_for(40)

    assert tally.kinds == {EXPIRED_TYPE: 40, RESULT_TYPE: 40}
