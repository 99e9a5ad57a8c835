"""`penstock dlq` on real Kafka: from a worker's dead letter to the fixed worker's answer, and what may go wrong."""

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition

from contracts.codec import Headers, Record, RecordHeaders, dead_letter, dead_letter_headers, redrive_of
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, RESULT_TYPE, DeadLetter
from contracts.settings import ProducerSettings, load
from gateways.cli.dlq_letters import Letter
from gateways.cli.dlq_units import Discard
from gateways.cli.dlq_write import Unit, Writer
from gateways.cli.reading import Read, as_read
from producers.fenced import TakenOver
from tests.kafka.worker_lab import PARTITIONS, Outcomes, WorkerLab, headers_of
from tests.kafkalab.commits import Commits
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(150)

ODD: list[tuple[str, bytes | None]] = [("x", b"\xff\x00"), ("x", b""), ("x", None), ("penstock-dead-letter", b"theirs")]
CE: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"p1"), ("ce_source", b"s"), ("ce_type", b"t")]


class Dlq:
    """The real program at work on a lab's topics."""

    def __init__(self, lab: WorkerLab) -> None:
        self._lab = lab
        self._config = lab.config

    def start(self, *args: str) -> ChildProcess:
        """Return the program, not started yet."""
        return ChildProcess("gateways.cli", "dlq", *args, "--config", str(self._config))

    def __call__(self, *args: str, code: int = 0) -> str:
        """Run it and return its output."""
        with self.start(*args) as process:
            assert process.wait(60) == code, process.output
            return process.output

    def states(self, *args: str) -> dict[str, str]:
        """Return ids and states of what is listed."""
        lines = self("list", "--json", "--limit", "1000", *args).splitlines()
        return {found["event"]["id"]: found["state"] for found in map(json.loads, lines)}


def bury(lab: WorkerLab, *ids: str, headers: RecordHeaders = ()) -> None:
    """Put dead letters on the topic, as a worker does."""
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap, "log_level": 0})
    for number, name in enumerate(ids):
        why = DeadLetter(
            reason="output_invalid", disposition="poison", message="no", attempts=1, route="r",
            topic=lab.events, partition=number % PARTITIONS, offset=number, failed_at="2026-11-24T08:00:00.000Z",
        )  # fmt: skip
        named = [("ce_id", name.encode()) if header[0] == "ce_id" else header for header in CE]
        letter_headers: list[tuple[str, str | bytes | None]] = [*dead_letter_headers([*named, *headers], why)]
        producer.produce(lab.topics.dead_letters, b"{}", f"k{number}", headers=letter_headers)
    assert producer.flush(10) == 0


def committed(lab: WorkerLab, topic: str) -> list[Read]:
    """Return what a reader of committed records sees on a topic now."""
    consumer = Consumer(
        {
            "bootstrap.servers": lab.kafka.bootstrap,
            "group.id": lab.kafka.name("committed"),
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: list[Read] = []
    ends = 0
    try:
        consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
        deadline_s = time.monotonic() + 20
        while ends < PARTITIONS and time.monotonic() < deadline_s:
            for message in consumer.consume(500, 0.1):
                if message.error() is None:
                    found.append(as_read(message))
                else:
                    ends += 1
        return found
    finally:
        consumer.close()


@pytest.fixture
def lab(kafka: KafkaLab, tmp_path: Path) -> WorkerLab:
    made = WorkerLab(kafka, tmp_path, [{"latency_s": 0.01}])
    made.create_topics()
    return made


def test_a_poison_event_is_put_back_and_answered_by_the_fixed_worker(lab: WorkerLab) -> None:
    document = yaml.safe_load(lab.config.read_text())
    fixed = json.loads(json.dumps(document))
    document["routes"][0]["prompt"]["user"] = "{{ data.missing }}"
    lab.config.write_text(yaml.safe_dump(document))
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap, "log_level": 0})
    producer.produce(lab.events, b'{"a": 1}', b"k1", headers=[*CE, *ODD])
    assert producer.flush(10) == 0
    dlq = Dlq(lab)
    with Outcomes(lab.kafka, lab.topics.results) as results:
        with lab.running() as broken:
            results.wait_for(1)
            broken.signal(signal.SIGTERM)
            assert broken.wait(20) == 0

        [listed] = [json.loads(line) for line in dlq("list", "--json").splitlines()]
        place = f"{listed['partition']}/{listed['offset']}"
        shown = dlq("show", place)
        lab.config.write_text(yaml.safe_dump(fixed))
        redriven = dlq("redrive", "--yes", "--id", "p1")

        with lab.running():
            eventually(lambda: results.read().kinds[RESULT_TYPE] == 1, within_s=30)
    first, second = (headers_of(message) for message in results.messages)
    again = next(record for record in committed(lab, lab.events) if redrive_of(record.headers))

    assert (listed["letter"]["reason"], listed["letter"]["offset"]) == ("prompt_failed", 0)
    assert "prompt_failed (poison)" in shown
    assert "1 of 1 dead letters redriven" in redriven
    assert (again.key, again.value, again.headers[:-1]) == (b"k1", b'{"a": 1}', [*CE, *ODD])
    assert [dict(headers)["ce_type"].decode() for headers in (first, second)] == [DEAD_LETTER_MARKER_TYPE, RESULT_TYPE]
    # One event, one id for its outcomes; the second says that it follows a redrive.
    assert dict(first)["ce_id"] == dict(second)["ce_id"]
    assert redrive_of(first) is None
    assert redrive_of(second) is not None
    assert dlq.states("--all") == {"p1": "redriven"}
    assert dlq.states() == {}


def test_a_tombstone_and_null_headers_survive_burial_and_redrive(lab: WorkerLab) -> None:
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap, "log_level": 0})
    producer.produce(lab.events, None, b"k1", headers=[*CE, *ODD])
    assert producer.flush(10) == 0
    with lab.running() as worker:
        letters = eventually(lambda: committed(lab, lab.topics.dead_letters), within_s=30)
        worker.signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    Dlq(lab)("redrive", "--yes")
    original, again = sorted(committed(lab, lab.events), key=lambda record: record.offset)

    assert (letters[0].value, letters[0].headers[:-1]) == (None, [*CE, *ODD])
    assert dead_letter(letters[0].headers).reason == "undecodable"
    assert (again.value, again.headers[:-1]) == (original.value, original.headers) == (None, [*CE, *ODD])


def test_a_dry_run_writes_nothing(lab: WorkerLab) -> None:
    bury(lab, "a", "b")
    output = Dlq(lab)("redrive", "--dry-run")

    assert "dry run: would redrive 2 of 2 dead letters" in output
    assert committed(lab, lab.events) == []
    assert len(committed(lab, lab.topics.dead_letters)) == 2


def test_a_killed_redrive_goes_on_without_putting_anything_back_twice(lab: WorkerLab) -> None:
    ids = [f"e{n}" for n in range(400)]
    bury(lab, *ids)
    dlq = Dlq(lab)
    with dlq.start("redrive", "--yes", "--rate", "100") as process:
        eventually(lambda: len(committed(lab, lab.events)) >= 50, within_s=30)
        process.signal(signal.SIGKILL)
        process.wait(10)
    done = len(committed(lab, lab.events))
    rest = dlq("redrive", "--yes")
    found = [dict(record.headers)["ce_id"] or b"" for record in committed(lab, lab.events)]

    assert 50 <= done < 400
    assert f"{400 - done} of {400 - done} dead letters redriven" in rest
    assert sorted(found) == sorted(name.encode() for name in ids)
    assert dlq.states() == {}


def test_ctrl_c_leaves_the_rest_open_for_the_same_command(lab: WorkerLab) -> None:
    bury(lab, *(f"e{n}" for n in range(40)))
    dlq = Dlq(lab)
    with dlq.start("redrive", "--yes", "--rate", "5") as process:
        eventually(lambda: committed(lab, lab.events), within_s=30)
        process.signal(signal.SIGINT)
        assert process.wait(20) == 130
    done = len(committed(lab, lab.events))

    assert 0 < done < 40
    assert f"{done} of 40 dead letters redriven, {40 - done} stay open" in process.output
    assert len(dlq.states()) == 40 - done


def test_of_two_operators_the_later_one_takes_over_and_nothing_goes_twice(lab: WorkerLab) -> None:
    ids = [f"e{n}" for n in range(100)]
    bury(lab, *ids)
    dlq = Dlq(lab)
    with dlq.start("redrive", "--yes", "--rate", "10") as first:
        eventually(lambda: committed(lab, lab.events), within_s=30)
        second = dlq("redrive", "--yes")
        assert first.wait(30) == 1
    found = [dict(record.headers)["ce_id"] or b"" for record in committed(lab, lab.events)]

    assert "another redrive or discard was started on this topic, and has taken over" in first.output
    assert "dead letters redriven" in second
    assert sorted(found) == sorted(name.encode() for name in ids)


@pytest.fixture
def writer(lab: WorkerLab) -> Callable[[], Writer]:
    def start() -> Writer:
        made = Writer(load(lab.config).kafka, ProducerSettings(), f"{lab.prefix}.resolve")
        made.start()
        return made

    return start


def letter(lab: WorkerLab, name: str) -> Letter:
    """Return a letter that need not lie anywhere."""
    return Letter(Read(lab.topics.dead_letters, 0, 0, 0, None, b"{}", [("ce_id", name.encode())]), None)


def test_one_bad_record_does_not_spoil_the_letters_of_its_transaction(
    lab: WorkerLab, writer: Callable[[], Writer]
) -> None:
    nowhere = Record(lab.events, None, b"{}", [], PARTITIONS + 5)
    units = [Unit(letter(lab, name), Discard("me", "")(letter(lab, name)).records) for name in ("a", "b", "c")]
    units[1] = Unit(units[1].letter, (nowhere, *units[1].records))
    writing = writer()
    refused = writing.write(units)
    writing.close()

    assert [(refusal.letter.event_id, refusal.error) for refusal in refused] == [
        ("b", f"topic {lab.events} has no partition {PARTITIONS + 5}")
    ]
    assert len(committed(lab, lab.topics.dead_letters)) == 2


def test_a_writer_that_was_taken_over_writes_nothing_more(lab: WorkerLab, writer: Callable[[], Writer]) -> None:
    unit = Unit(letter(lab, "a"), Discard("me", "")(letter(lab, "a")).records)
    former = writer()
    assert former.write([unit]) == []
    latter = writer()

    with pytest.raises(TakenOver):
        former.write([unit])
    former.close()
    assert latter.write([unit]) == []
    latter.close()
    assert len(committed(lab, lab.topics.dead_letters)) == 2


def test_what_an_undone_transaction_says_of_a_letter_counts_for_nothing(lab: WorkerLab) -> None:
    bury(lab, "a")
    [buried] = committed(lab, lab.topics.dead_letters)
    note = Discard("me", "")(Letter(buried, None)).records[0]
    producer = Producer({"bootstrap.servers": lab.kafka.bootstrap, "transactional.id": lab.kafka.name("other")})
    producer.init_transactions(15)
    producer.begin_transaction()
    headers: list[tuple[str, str | bytes | None]] = [*note.headers]
    producer.produce(note.topic, note.value, note.key, buried.partition, headers=headers)
    assert producer.flush(10) == 0
    producer.abort_transaction(15)

    assert Dlq(lab).states() == {"a": "open"}


def test_without_transactions_letters_are_resolved_all_the_same(lab: WorkerLab) -> None:
    bury(lab, "a", "b")
    dlq = Dlq(lab)
    dlq("redrive", "--yes", "--no-transaction")

    assert len(committed(lab, lab.events)) == 2
    assert dlq.states("--all") == {"a": "redriven", "b": "redriven"}


def test_since_and_until_bound_what_is_meant(lab: WorkerLab) -> None:
    bury(lab, "a", "b")
    dlq = Dlq(lab)

    assert dlq.states("--since", "1h") == {"a": "open", "b": "open"}
    assert dlq.states("--until", "1h") == {}
    assert dlq.states("--since", "2100-01-01T00:00:00Z") == {}


def committed_by(lab: WorkerLab, group: str) -> dict[int, int]:
    """Return what a group has committed of the events, partitions with nothing left out."""
    with contextlib.closing(Commits(lab.kafka.bootstrap, group)) as commits:
        found = commits.read([lab.events], range(PARTITIONS))
    return {number: offset for (_, number), offset in found.items() if offset > 0}


def test_an_event_is_put_back_for_the_application_that_buried_it_alone(lab: WorkerLab, tmp_path: Path) -> None:
    """Two that read one topic: what the one cannot answer the other has answered, and paid for."""
    document = yaml.safe_load(lab.config.read_text())
    other, group = json.loads(json.dumps(document)), f"{lab.prefix}-other"
    other["worker"]["app_id"] = group
    (tmp_path / "other").mkdir()
    beside = WorkerLab(lab.kafka, tmp_path / "other")
    beside.config.write_text(yaml.safe_dump(other))
    lab.config.write_text(yaml.safe_dump(document | {"routes": [document["routes"][0] | {"match": {"type": "x"}}]}))
    lab.send(0, 1, keys=1)

    with Outcomes(lab.kafka, lab.topics.results) as results, beside.running():
        with lab.running() as broken:
            eventually(lambda: bool(results.read().by_id) and len(results.messages) == 2, within_s=30)
            broken.signal(signal.SIGTERM)
            assert broken.wait(20) == 0
        lab.config.write_text(yaml.safe_dump(document))
        redriven = Dlq(lab)("redrive", "--yes")
        lab.send(1, 1, keys=1)
        with lab.running():
            eventually(lambda: bool(results.read().by_id) and len(results.messages) == 5, within_s=30)
            ends = {number: end for number, end in lab.ends().items() if end}
            eventually(lambda: committed_by(lab, lab.prefix) == committed_by(lab, group) == ends, within_s=30)
        results.read()
    made = Counter(
        (dict(headers)["penstock-source-app"].decode(), dict(headers)["ce_eventid"].decode())
        for headers in map(headers_of, results.messages)
    )

    assert "1 of 1 dead letters redriven" in redriven
    assert made == {(lab.prefix, "e0"): 2, (lab.prefix, "e1"): 1, (group, "e0"): 1, (group, "e1"): 1}
