"""Tests of `penstock tail` and its reader."""

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings, build, parse
from gateways.cli.main import run
from gateways.cli.reading import TopicReader, as_read
from gateways.cli.tail import topics_of
from producers.embedded import EmbeddedBroker
from tests.gateways.cli.records import result
from tests.gateways.cli.settings import SMALL, write
from tests.support import ChildProcess


@pytest.fixture
def prefix(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a topic prefix of this test's own, and point the configuration at the embedded broker."""
    name = f"tail-{time.monotonic_ns()}"
    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", embedded_broker.bootstrap)
    monkeypatch.setenv("PENSTOCK_KAFKA__EMBEDDED", "true")
    monkeypatch.setenv("PENSTOCK_KAFKA__TOPIC_PREFIX", name)
    return name


def produce(broker: EmbeddedBroker, prefix: str, *ids: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for event_id in ids:
        record = result(f"summary of {event_id}", event_id)
        headers: list[tuple[str, str | bytes | None]] = [*record.headers]
        producer.produce(f"{prefix}.results.v1", record.value, headers=headers)
    assert producer.flush(10) == 0


def test_result_topics_of_routes_are_read_too() -> None:
    settings = build(
        parse(SMALL.replace("model: default\n", "model: default\n    output_topic: own.v1\n"), "x"), {}, Path()
    )

    assert topics_of("results", settings) == ["penstock.results.v1", "own.v1"]
    assert topics_of("dead-letters", settings) == ["penstock.dead-letters.v1"]
    assert topics_of("events", settings)[0] == "penstock.events.interactive.v1"


def test_no_broker_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateways.cli.reading.METADATA_LIMIT_S", 0.2)
    reader = TopicReader(KafkaSettings(bootstrap_servers=("127.0.0.1:1",)), ["x"], from_beginning=True)

    with pytest.raises(LogUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1 \(.*Connection refused"):
        reader.start()


@pytest.mark.embedded
def test_no_follow_shows_what_is_there_and_ends(
    embedded_broker: EmbeddedBroker, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(embedded_broker, prefix, "e-1", "e-2")

    code = run(["tail", "results", "--no-follow", "--config", str(write(tmp_path))])

    assert code == 0
    assert sorted(line.strip() for line in capsys.readouterr().out.splitlines() if "summary" in line) == [
        "summary of e-1",
        "summary of e-2",
    ]


@pytest.mark.embedded
def test_count_ends_after_so_many(
    embedded_broker: EmbeddedBroker, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(embedded_broker, prefix, "e-1", "e-2", "e-3")

    run(["tail", "results", "--from-beginning", "--count", "2", "--json", "--config", str(write(tmp_path))])

    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.embedded
@pytest.mark.usefixtures("prefix")
def test_an_empty_topic_is_read_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tail", "dead-letters", "--no-follow", "--config", str(write(tmp_path))]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("no dead-letters on tail-")


@pytest.mark.embedded
def test_following_shows_new_records_and_ctrl_c_is_clean(
    embedded_broker: EmbeddedBroker, prefix: str, tmp_path: Path
) -> None:
    args = ("gateways.cli", "tail", "results", "--from-beginning", "--config", str(write(tmp_path)))
    with ChildProcess(*args, env=dict(os.environ)) as tailing:
        produce(embedded_broker, prefix, "e-1")
        tailing.wait_for("summary of e-1")
        produce(embedded_broker, prefix, "e-2")
        tailing.wait_for("summary of e-2")
        tailing.signal(signal.SIGINT)

        assert tailing.wait(10) == 130
        assert "Traceback" not in tailing.output


@pytest.mark.embedded
def test_a_topic_that_does_not_exist_is_named(embedded_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = KafkaSettings(bootstrap_servers=(embedded_broker.bootstrap,))
    # A real broker says so by itself; the embedded one makes every topic that is asked for.
    unknown = SimpleNamespace(error="unknown", partitions={})
    reader = TopicReader(kafka, ["x"], from_beginning=True)
    monkeypatch.setattr(reader, "_metadata", lambda _topic: SimpleNamespace(topics={"x": unknown}))

    with pytest.raises(LogUnavailable, match="topic x does not exist; `penstock topics create` makes it"):
        reader.start()


class _Silent:
    """A client that hears nothing; its broker is back when a test says so."""

    def __init__(self) -> None:
        self.is_back = False

    def poll(self, _timeout_s: float) -> None: ...

    def list_topics(self, *_: object, **__: object) -> None:
        if not self.is_back:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


def _reader(monkeypatch: pytest.MonkeyPatch, patience_s: float | None) -> tuple[TopicReader, _Silent]:
    kafka = KafkaSettings(bootstrap_servers=("127.0.0.1:1",))
    reader = TopicReader(kafka, ["x"], from_beginning=True, patience_s=patience_s)
    client = _Silent()
    monkeypatch.setattr(reader, "_consumer", client)
    monkeypatch.setattr(reader, "_open", {("x", 0)})
    return reader, client


def test_a_reader_of_what_there_is_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = _reader(monkeypatch, patience_s=1.0)
    assert [reader.poll(0.5), reader.poll(0.5)] == [None, None]

    with pytest.raises(
        LogUnavailable, match=r"nothing came for 1 s from Kafka at 127\.0\.0\.1:1, and not all was read"
    ):
        reader.poll(0.5)


def test_a_reader_that_is_at_the_end_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, _ = _reader(monkeypatch, patience_s=1.0)
    monkeypatch.setattr(reader, "_open", set())

    assert [reader.poll(0.5) for _ in range(9)] == [None] * 9


def test_a_reader_knows_that_it_is_cut_off_until_a_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, client = _reader(monkeypatch, patience_s=None)
    reader._heard(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    reader.poll(0.2)
    assert reader.is_cut_off

    client.is_back = True
    reader.poll(0.2)

    assert not reader.is_cut_off


@pytest.mark.embedded
def test_a_broker_that_goes_away_is_told_to_whoever_follows(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with ChildProcess("gateways.cli", "broker", "--port-file", str(port_file)) as broker:
        broker.wait_for("listening on")
        servers = f"127.0.0.1:{port_file.read_text(encoding='ascii').strip()}"
        kafka = {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": servers, "PENSTOCK_KAFKA__EMBEDDED": "true"}
        producer = Producer({"bootstrap.servers": servers})
        record = result("a summary", "e-1")
        producer.produce("penstock.results.v1", record.value, headers=[*record.headers])
        assert producer.flush(10) == 0
        args = ("gateways.cli", "tail", "results", "--from-beginning", "--config", str(write(tmp_path)))
        with ChildProcess(*args, env={**os.environ, **kafka}) as tailing:
            tailing.wait_for("a summary")
            broker.signal(signal.SIGKILL)

            tailing.wait_for(f"no Kafka broker answers at {servers}; waiting for it")


def test_a_record_whose_headers_cannot_be_read_is_shown_as_such() -> None:
    class Odd:
        def headers(self) -> list[tuple[str, bytes]]:
            message = "<method 'headers' of 'cimpl.Message' objects> returned a result with an exception set"
            raise SystemError(message)

    told = {"topic": "t", "partition": 0, "offset": 3, "key": None, "value": b"v", "timestamp": (1, 1000)}
    odd = Odd()
    for name, value in told.items():
        setattr(odd, name, lambda value=value: value)

    assert as_read(odd).headers == [("(headers that cannot be read)", None)]  # type: ignore[arg-type]
