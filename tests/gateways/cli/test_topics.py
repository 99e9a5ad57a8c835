"""`penstock topics`: on real Kafka, on the embedded broker, and without any."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from gateways.cli import topics as module
from gateways.cli.main import run
from producers.embedded import EmbeddedBroker
from tests.embedded import embedded_broker  # noqa: F401 - a fixture
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually, free_port

pytestmark = pytest.mark.process

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_config(bootstrap: str, prefix: str = "penstock", **kafka: object) -> str:
        file = tmp_path / "penstock.yaml"
        extra = "".join(f"\n  {name}: {value}" for name, value in kafka.items())
        text = (
            f"version: 1\nkafka:\n  bootstrap_servers: {bootstrap}\n  topic_prefix: {prefix}\n  partitions: 3{extra}\n"
        )
        file.write_text(text, encoding="ascii")
        return str(file)

    return write_config


@pytest.fixture
def config(kafka: KafkaLab, write: Write) -> str:
    return write(kafka.bootstrap, kafka.prefix)


@pytest.fixture
def topic_names(kafka: KafkaLab) -> list[str]:
    """Name the topics for the lab to delete, since the command makes them."""
    events = ("events.interactive", "events.standard", "events.bulk")
    kinds = (
        *(*events, "results", "deltas", "dead-letters", "retries"),
        *("cancels", "replies", "batch-jobs", "handovers"),
    )
    names = [f"{kafka.prefix}.{kind}.v1" for kind in kinds]
    kafka._created.extend(names)
    return names


@pytest.mark.kafka
def test_create_makes_what_is_missing_and_verify_agrees(
    config: str, topic_names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["topics", "create", "--config", config, "--wait", "5"]) == 0
    made = capsys.readouterr().out
    assert run(["topics", "verify", "--config", config]) == 0

    assert all(f"made {name}, 3 partitions" in made for name in topic_names)
    assert "11 topics are as configured" in capsys.readouterr().out


@pytest.mark.kafka
def test_create_twice_makes_nothing_the_second_time(
    config: str, topic_names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["topics", "create", "--config", config])
    capsys.readouterr()

    assert run(["topics", "create", "--config", config]) == 0
    assert capsys.readouterr().out == f"{len(topic_names)} of {len(topic_names)} topics were there already\n"


@pytest.mark.kafka
def test_a_dry_run_makes_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "create", "--config", config, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("would make") == 11
    assert run(["topics", "verify", "--config", config]) == 1
    assert capsys.readouterr().out.count(": missing") == 11


@pytest.mark.kafka
def test_verify_finds_what_somebody_changed(
    config: str, topic_names: list[str], kafka: KafkaLab, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["topics", "create", "--config", config])
    events, results = topic_names[1], topic_names[3]
    admin = kafka.admin()
    for grown in admin.create_partitions([NewPartitions(events, 6)]).values():
        grown.result(10)
    compact = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, results, incremental_configs=[compact])
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(10)

    def output_of_failure() -> str:
        """Return what verify says once the brokers tell of both changes."""
        capsys.readouterr()
        code = run(["topics", "verify", "--config", config])
        told = capsys.readouterr().out
        return told if code == 1 and "compact" in told and "has 6" in told else ""

    output = eventually(output_of_failure)
    assert f"{results}: 3 partitions, but an event topic has 6" in output
    assert f"{results}: cleanup.policy is compact, must be delete" in output


@pytest.mark.kafka
def test_the_list_shows_partitions_retention_and_the_note_on_paying_once(
    config: str, topic_names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(["topics", "create", "--config", config])
    capsys.readouterr()

    assert run(["topics", "--config", config]) == 0
    output = capsys.readouterr().out
    assert topic_names[3] in output
    assert "7 days" in output
    assert "paid for twice" in output
    assert run(["topics", "list", "--config", config]) == 0
    assert capsys.readouterr().out == output


@pytest.mark.kafka
def test_more_replicas_than_brokers_is_a_fault_of_the_configuration(
    kafka: KafkaLab, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write(kafka.bootstrap, kafka.prefix, replication_factor=9)

    assert run(["topics", "create", "--config", config]) == 2
    assert "eplication" in capsys.readouterr().err


@pytest.mark.embedded
def test_on_the_embedded_broker_it_says_that_topics_appear_by_themselves(
    embedded_broker: EmbeddedBroker,  # noqa: F811 - the fixture
    write: Write,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write(embedded_broker.bootstrap, "by-itself", embedded="true")

    assert run(["topics", "create", "--config", config]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(["topics", "verify", "--config", config]) == 0
    assert "only partition counts" in capsys.readouterr().out
    assert run(["topics", "--config", config]) == 0
    assert "appears on first use" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["verify"], ["create", "--wait", "0.3"]])
def test_without_a_broker_it_says_so(
    command: list[str], write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_REACH_LIMIT_S", 0.3)
    address = f"127.0.0.1:{free_port()}"
    config = write(address)
    args = ["topics", *command, "--config", config]

    assert run(args) == 1
    assert f"no Kafka broker answers at {address}" in capsys.readouterr().err


def test_a_broker_that_speaks_no_tls_is_told_as_such(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with a wrong port of a cluster, a missing certificate or a wrong password: the question itself only fails."""
    monkeypatch.setattr(module, "_REACH_LIMIT_S", 1.0)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        config = write(f"127.0.0.1:{server.server_port}", security_protocol="SSL")

        assert run(["topics", "--config", config]) == 1

        server.shutdown()
        serving.join()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"no Kafka broker answers at 127.0.0.1:{server.server_port}: ssl://")
    assert "SSL handshake failed" in said
    assert "(after" not in said


def test_a_bad_configuration_is_told_in_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text("version: 1\nkafka: {partitions: 0}\n", encoding="ascii")

    assert run(["topics", "verify", "--config", str(file)]) == 2
    assert "kafka.partitions" in capsys.readouterr().err
