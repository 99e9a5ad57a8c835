"""The scan of the result topics on real Kafka."""

import time
from collections.abc import Iterable

import pytest
from confluent_kafka import Producer

from contracts.codec import Position, position_headers
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from streams.engine.item import TP, ResultRef
from streams.tail import Tail, TailReader
from tests.kafka.worker_lab import recreate
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually, free_port

STANDARD, BULK = TP("events.standard", 1), TP("events.bulk", 1)


def reader(kafka: KafkaLab, *topics: str) -> TailReader:
    return TailReader(KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), "app", frozenset(topics))


def answer(
    kafka: KafkaLab,
    topic: str,
    offsets: Iterable[int],
    *,
    source: TP = STANDARD,
    app_id: str = "app",
    transaction: str = "",
) -> None:
    """Write terminal records for events at these offsets into the partition of their source."""
    config = {"transactional.id": transaction} if transaction else {}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0, **config})
    if transaction:
        producer.init_transactions(15)
        producer.begin_transaction()
    for offset in offsets:
        headers = position_headers(app_id, Position(*source, offset, 1000 + offset))
        producer.produce(topic, b"{}", partition=source.partition, headers=list(headers))
    if transaction:
        producer.commit_transaction(15)
    assert producer.flush(15) == 0


def found(tail: Tail) -> dict[int, int]:
    """Return event offset -> result offset."""
    return {offset: ref.offset for (offset, _), ref in tail.answered}


def test_the_ends_of_result_partitions_are_told_but_of_those_that_are_not_there(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(4))
    results = reader(kafka, topic)
    places = {TP(topic, 0), TP(topic, 1)}

    assert results.ends(places | {TP(topic, 2)}) == {(topic, 0): 0, (topic, 1): 4}
    assert results.ends(places) == {(topic, 0): 0, (topic, 1): 4}


def test_answers_from_the_mark_on_are_found_with_place_and_timestamp(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(10))
    tail = reader(kafka, topic).read({STANDARD: (4, {topic: 4})})[STANDARD]

    assert found(tail) == {n: n for n in range(4, 10)}
    assert tail.answered.get(7, 1007) == ResultRef(topic, 7)
    assert (tail.starts, tail.ends) == ({topic: 4}, {topic: 10})


def test_answers_below_the_commit_are_left_out(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, [5, 1, 7, 2])

    assert found(reader(kafka, topic).read({STANDARD: (5, {topic: 0})})[STANDARD]) == {5: 0, 7: 2}


def test_a_partition_without_a_mark_gets_only_the_ends(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(3))
    tail = reader(kafka, topic).read({STANDARD: (0, None)})[STANDARD]

    assert (len(tail.answered), tail.starts, tail.ends) == (0, {topic: 3}, {topic: 3})


def test_lanes_that_share_a_result_partition_are_told_apart(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(3))
    answer(kafka, topic, range(3), source=BULK)
    tails = reader(kafka, topic).read({STANDARD: (0, {topic: 0}), BULK: (1, {topic: 4})})

    assert (found(tails[STANDARD]), found(tails[BULK])) == ({0: 0, 1: 1, 2: 2}, {1: 4, 2: 5})


def test_records_of_other_applications_and_other_partitions_do_not_count(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, [0], app_id="other")
    answer(kafka, topic, [0], source=TP("events.standard", 0))

    assert found(reader(kafka, topic).read({STANDARD: (0, {topic: 0})})[STANDARD]) == {}


def test_every_result_topic_is_scanned(kafka: KafkaLab) -> None:
    first, second = kafka.create("results", "own", partitions=2)
    answer(kafka, first, [0])
    answer(kafka, second, [1])
    tail = reader(kafka, first, second).read({STANDARD: (0, {first: 0, second: 0})})[STANDARD]

    assert dict(tail.answered) == {(0, 1000): ResultRef(first, 0), (1, 1001): ResultRef(second, 0)}


def test_a_partition_that_ends_with_a_transaction_marker_is_read_to_its_end(kafka: KafkaLab) -> None:
    """The last offset holds no record, so nobody may wait for it."""
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(3), transaction=kafka.name("tx"))

    def tail_with_marker() -> Tail | None:
        """Return the tail once the broker has written the marker, which it does after the commit has returned."""
        tail = reader(kafka, topic).read({STANDARD: (0, {topic: 0})})[STANDARD]
        return tail if tail.ends == {topic: 4} else None

    tail = eventually(tail_with_marker)

    assert tail is not None
    assert found(tail) == {0: 0, 1: 1, 2: 2}


def test_a_transaction_that_somebody_leaves_open_hides_no_answers(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    other = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": kafka.name("open"), "log_level": 0})
    other.init_transactions(15)
    other.begin_transaction()
    other.produce(topic, b"{}", partition=1)
    assert other.flush(15) == 0
    answer(kafka, topic, range(3))
    tail = reader(kafka, topic).read({STANDARD: (0, {topic: 0})})[STANDARD]
    other.abort_transaction(15)

    assert found(tail) == {0: 1, 1: 2, 2: 3}


def test_a_mark_outside_of_the_log_is_moved_into_it(kafka: KafkaLab) -> None:
    """The result topic was recreated, or retention has passed the mark."""
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(3))
    tail = reader(kafka, topic).read({STANDARD: (0, {topic: 99})})[STANDARD]

    assert (len(tail.answered), tail.starts) == (0, {topic: 3})


def test_many_answers_are_all_found(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(5000))

    assert len(reader(kafka, topic).read({STANDARD: (0, {topic: 0})})[STANDARD].answered) == 5000


def test_a_result_topic_that_is_not_there_is_our_error(kafka: KafkaLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.tail._REQUEST_TIMEOUT_S", 2.0)

    with pytest.raises(LogUnavailable, match="result topics cannot be read"):
        reader(kafka, kafka.name("none")).read({STANDARD: (0, {})})


def test_a_result_partition_that_is_not_there_is_named(kafka: KafkaLab) -> None:
    (topic,) = kafka.create("results", partitions=2)
    missing = TP("events", 2)

    with pytest.raises(LogUnavailable, match=f"{topic} has no partition 2"):
        reader(kafka, topic).read({missing: (0, {topic: 0})})


def test_brokers_that_do_not_answer_are_our_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.tail._REQUEST_TIMEOUT_S", 0.5)
    settings = KafkaSettings(bootstrap_servers=(f"127.0.0.1:{free_port()}",))

    with pytest.raises(LogUnavailable, match="result topics cannot be read"):
        TailReader(settings, "app", frozenset({"results"})).read({STANDARD: (0, {})})


def test_a_topic_that_is_made_anew_is_another_log(kafka: KafkaLab, monkeypatch: pytest.MonkeyPatch) -> None:
    # A worker goes on without ids rather than wait for a broker that is slow; here it is the ids that are wanted.
    monkeypatch.setattr("streams.tail._ADMIN_TIMEOUT_S", 20.0)
    topic, other = kafka.create("events", "other", partitions=1)
    found = reader(kafka)

    def known(former: dict[str, int]) -> dict[str, int]:
        # The controller tells of a change before the broker has heard of it.
        ids = found.ids([topic, other, kafka.name("none")])
        return ids if ids.keys() == {topic, other} and ids[topic] != former.get(topic) else {}

    before = eventually(lambda: known({}), within_s=20)
    recreate(kafka, topic, partitions=1)
    after = eventually(lambda: known(before), within_s=20)

    assert before[other] == after[other]


def test_ids_that_nobody_answers_are_not_known_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streams.tail._ADMIN_TIMEOUT_S", 0.2)
    settings = KafkaSettings(bootstrap_servers=(f"127.0.0.1:{free_port()}",))
    found = TailReader(settings, "app", frozenset())

    assert (found.ids(["events"]), found.ids(["events"])) == ({}, {})
    assert sum("topics.unidentified" in line for line in "".join(capsys.readouterr()).splitlines()) == 1


def stamped(kafka: KafkaLab, topic: str, *ages_s: float) -> None:
    """Write records of these ages into partition 1."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    now_ms = int(time.time() * 1000)
    for age_s in ages_s:
        producer.produce(topic, b"{}", partition=1, timestamp=now_ms - int(age_s * 1000))
    assert producer.flush(15) == 0


def test_without_a_commit_results_older_than_the_first_event_are_not_looked_through(kafka: KafkaLab) -> None:
    """But for an hour, by which clocks may differ; a topic without anything since then is not read at all."""
    source, first, second, empty = kafka.create("events", "results", "own", "empty", partitions=2)
    stamped(kafka, source, 5000, 9000)
    stamped(kafka, first, 20_000, 9000, 8500, 100)
    stamped(kafka, second, 20_000, 9000)
    place = TP(source, 1)

    assert reader(kafka, first, second, empty).begins({place: 0}, {place}) == {place: {first: 2, second: 2, empty: 0}}


def test_what_lies_behind_a_first_event_that_is_gone_is_no_time_of_it(kafka: KafkaLab) -> None:
    (source, results) = kafka.create("events", "results", partitions=2)
    stamped(kafka, source, 5000)
    stamped(kafka, results, 20_000, 100)
    lost = TP(source, 0)

    assert reader(kafka, results).begins({lost: 0}, {lost}) == {lost: {results: 0}}


def test_what_a_scan_reads_beyond_all_before_it_is_progress(kafka: KafkaLab) -> None:
    """One that fails and begins again, and again, is none: a standstill has to be seen."""
    (topic,) = kafka.create("results", partitions=2)
    answer(kafka, topic, range(10))
    scanning = reader(kafka, topic)
    seen = []
    for start in (4, 7, 0):
        scanning.read({STANDARD: (0, {topic: start})})
        seen.append(scanning.furthest)

    assert seen == [6, 6, 10]
