"""The broker that tests get behaves as fault tests need it."""

import signal

import pytest
from confluent_kafka import Consumer, Producer

from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import SHORT_LIVED
from tests.support import ChildProcess, eventually, free_port


def test_a_record_survives_a_restart_on_the_same_address(kafka: KafkaLab) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("a given broker is not restarted")
    (topic,) = kafka.create("records", partitions=1)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    producer.produce(topic, b"kept")
    assert producer.flush(10) == 0

    kafka.restart()

    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "group.id": kafka.name("group"),
            "auto.offset.reset": "earliest",
            "log_level": 0,
        },
    )
    consumer.subscribe([topic])
    try:
        record = eventually(lambda: consumer.poll(0.5), within_s=30)
    finally:
        consumer.close()

    assert record is not None
    assert record.value() == b"kept"


def test_topics_of_two_tests_have_different_names(kafka: KafkaLab) -> None:
    assert kafka.name("events") != KafkaLab(kafka.broker).name("events")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_broker_stops_cleanly_on_a_signal(number: signal.Signals) -> None:
    # The signal is what matters here, not how fast that broker would become.
    flags = {"JAVA_TOOL_OPTIONS": " ".join(SHORT_LIVED)}
    with ChildProcess("tests.kafkalab", "--port", "0", env=flags) as lab:
        lab.wait_for(r"listening on 127\.0\.0\.1:\d+", within_s=40)
        lab.signal(number)

        assert lab.wait(15) == 0
        assert "stopped" in lab.output


def test_a_taken_port_is_refused_in_one_line(kafka: KafkaLab) -> None:
    port = kafka.bootstrap.rpartition(":")[2]
    with ChildProcess("tests.kafkalab", "--port", port) as lab:
        assert lab.wait(15) == 1
        assert (
            lab.output.strip()
            == f"kafka: port {port} is in use: choose another one, for example `make kafka PORT={int(port) + 1}`"
        )


def test_missing_java_is_named() -> None:
    with ChildProcess("tests.kafkalab", "--port", str(free_port()), env={"PATH": "/nonexistent"}) as lab:
        assert lab.wait(15) == 1
        assert "no java on the PATH" in lab.output
        assert "Traceback" not in lab.output
