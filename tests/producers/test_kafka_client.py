"""What our Kafka clients share, on clients of the real library whose brokers are away."""

import logging
import threading
import time

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from structlog.testing import capture_logs

from contracts import logs
from contracts.codec import Record
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, ProducerSettings
from producers import admin, log_reader
from producers.admin import TopicAdmin
from producers.fenced import FencedProducer
from producers.kafka_client import (
    SILENT,
    ClientLog,
    Stopped,
    error_of,
    in_thread,
    produce_waiting,
    producer_config,
    unless_stopped,
)
from producers.log_reader import LogReader
from tests.support import FakeClock, free_port

RECORD = Record("some-topic", b"key", b"value", [])


def small_client(gives_up_ms: int) -> Producer:
    """Return a client with room for one record, which stays there until it has been given up."""
    return Producer(
        {
            "bootstrap.servers": f"127.0.0.1:{free_port()}",
            "queue.buffering.max.messages": 1,
            "message.timeout.ms": gives_up_ms,
            "log_level": 0,
        }
    )


async def test_what_no_thread_can_ask_is_told_and_not_asked_later(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    start = threading.Thread.start

    def refuse(_thread: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LogUnavailable, match="can't start new thread"):
        await in_thread(asked.append, "first")
    monkeypatch.setattr(threading.Thread, "start", start)
    await in_thread(asked.append, "second")

    assert asked == ["second"]


def test_a_request_beside_a_stop_is_told_that_there_is_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LogUnavailable, match="can't start new thread"):
        unless_stopped(lambda: None, lambda: False)


@pytest.mark.parametrize(
    ("code", "kind"), [(KafkaError._CRIT_SYS_RESOURCE, LogUnavailable), (KafkaError._INVALID_ARG, KafkaException)]
)
def test_a_client_whose_threads_cannot_be_started_is_no_mistake_in_its_settings(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refuse(_config: object) -> None:
        raise KafkaException(KafkaError(code))

    monkeypatch.setattr(log_reader, "Consumer", refuse)
    monkeypatch.setattr(admin, "AdminClient", refuse)
    for make in (LogReader, TopicAdmin):
        with pytest.raises(kind):
            make(KafkaSettings())


async def test_an_error_of_a_request_itself_stays_what_it_is() -> None:
    def request() -> None:
        message = "a bug"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="a bug"):
        await in_thread(request)


_ALLOWED: list[dict[str, float]] = [
    {"delivery_timeout_s": 0.0001},
    {"delivery_timeout_s": 0.5, "linger_s": 1},
    {"delivery_timeout_s": 30 * 86_400},
    {"max_buffer_bytes": 2**41},
    {"max_record_bytes": 512 * 2**20},
]


@pytest.mark.parametrize("allowed", _ALLOWED, ids=str)
def test_a_producer_can_be_made_with_whatever_the_settings_allow(allowed: dict[str, float]) -> None:
    settings = ProducerSettings.model_validate(allowed)
    config = producer_config(KafkaSettings(), settings, "test", settings.delivery_timeout_s)

    Producer(config, logger=SILENT)
    # 0 is no limit for librdkafka.
    assert config["delivery.timeout.ms"] > 0


def test_a_record_waits_until_the_buffer_has_room() -> None:
    client = small_client(gives_up_ms=300)
    errors: list[str] = []
    produce_waiting(client, RECORD, errors, 10.0)

    produce_waiting(client, RECORD, errors, 10.0)

    gone = "record for topic some-topic was not confirmed in time; it may be on the log"
    assert errors == [gone]
    client.flush(5)
    assert errors == [gone, gone]


def test_a_buffer_that_stays_full_is_told() -> None:
    client = small_client(gives_up_ms=60_000)
    produce_waiting(client, RECORD, None, 0.0)

    with pytest.raises(KafkaException) as raised:
        produce_waiting(client, RECORD, None, 0.0)

    assert error_of(raised.value).code() == KafkaError._QUEUE_FULL
    client.purge()
    client.flush(5)


def test_a_writer_of_a_job_does_not_wait_for_room_behind_a_stop() -> None:
    kafka = KafkaSettings(bootstrap_servers=[f"127.0.0.1:{free_port()}"], embedded=True)
    # The client's own limit is twice this one.
    writer = FencedProducer(kafka, ProducerSettings(max_buffer_bytes=1_048_576), "job", is_stopped=lambda: True)
    record = Record("some-topic", None, bytes(900_000), [])
    began_s = time.monotonic()

    with pytest.raises(Stopped):
        writer.write([record] * 5)

    assert time.monotonic() - began_s < 5
    writer.close()


def test_records_that_nobody_confirms_are_not_on_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producers.fenced._OPEN_LIMIT_S", 0.3)
    kafka = KafkaSettings(bootstrap_servers=[f"127.0.0.1:{free_port()}"], embedded=True)
    writer = FencedProducer(kafka, ProducerSettings(), "job")

    with pytest.raises(LogUnavailable, match="not confirmed in time"):
        writer.write([RECORD])

    writer.close()


def test_librdkafkas_lines_become_ours() -> None:
    with capture_logs() as lines:
        ClientLog().log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "Connection refused")
        ClientLog().log(logging.INFO, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "not worth a line")

    assert lines == [
        {
            "event": "kafka.client_logged",
            "similar_left_out": 0,
            "component": "kafka",
            "facility": "FAIL",
            "client": "rdkafka#producer-1",
            "text": "Connection refused",
            "log_level": "error",
        }
    ]


def test_repeated_lines_of_librdkafka_are_counted_instead_of_written(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(logs, "REPETITIONS", logs.Repetitions(clock))
    log = ClientLog()
    with capture_logs() as lines:
        for _ in range(50):
            log.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "Connection refused")
        clock.advance(11)
        log.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "Connection refused")

    assert [line["similar_left_out"] for line in lines] == [0, 49]
