"""`penstock batch serve` and `penstock hand-over` as processes: their pages, and what signals do to them."""

import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Producer

from contracts.codec import encode_event
from contracts.envelope import Event
from contracts.settings import Settings, build, load, parse
from contracts.topics import Topics
from gateways.batch.serve import Service
from producers.embedded import EmbeddedBroker
from tests.support import ChildProcess, eventually, free_port

pytestmark = pytest.mark.embedded

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-central-1"}
BATCH_API = {
    "role_arn": "arn:aws:iam::123456789012:role/penstock",
    "input": "s3://jobs/in",
    "output": "s3://jobs/out",
    "min_records": 1,
    "max_wait_s": 1,
    "min_time_left_s": 1,
}
DOCUMENT = {
    "version": 1,
    "batch_jobs": {"inputs": [{"name": "nightly", "bucket": "in-bucket", "output": "s3://out-bucket/done"}]},
    "batch_process": {"health_port": 0},
    "hand_over_process": {"health_port": 0},
    "providers": {"bedrock": {"kind": "bedrock", "region": "eu-central-1", "batch_api": BATCH_API}},
    "models": {"m": {"provider": "bedrock", "model": "anthropic.claude-v1:0"}},
    "routes": [{"name": "r", "model": "m", "prompt": {"user": "{{ text }}"}}],
}
PROGRAMS = {"batch": ("gateways.cli", "batch", "serve"), "hand-over": ("streams", "hand-over")}


@pytest.fixture
def program(
    request: pytest.FixtureRequest, tmp_path: Path, embedded_broker: EmbeddedBroker
) -> Callable[[str], ChildProcess]:
    """Give what makes a program, not started yet, with topics of its own."""

    def make(name: str) -> ChildProcess:
        prefix = f"programs-{abs(hash(request.node.name))}"
        kafka = {"bootstrap_servers": embedded_broker.bootstrap, "embedded": True, "topic_prefix": prefix}
        jobs = DOCUMENT["batch_jobs"] | {"work_dir": str(tmp_path)}  # type: ignore[operator]
        file = tmp_path / "penstock.yaml"
        file.write_text(yaml.safe_dump(DOCUMENT | {"kafka": kafka, "batch_jobs": jobs}), encoding="utf-8")
        return ChildProcess(*PROGRAMS[name], "--config", str(file), env=AWS)

    return make


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own page
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def hand_one_over(settings: Settings) -> None:
    event = Event(id="e1", source="batch", type="t", data=b'{"text": "one"}', extensions={"delivery": "batch"})
    producer = Producer({"bootstrap.servers": ",".join(settings.kafka.bootstrap_servers), "log_level": 0})
    topic = Topics(settings.kafka.topic_prefix).handovers
    producer.produce(topic, event.data, headers=[*encode_event(event)])
    assert producer.flush(10) == 0


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_program_shows_its_health_and_ends_in_order(name: str, program: Callable[[str], ChildProcess]) -> None:
    with program(name) as process:
        url = process.wait_for(r"^health on (http://127\.0\.0\.1:[0-9]+)$")[1]
        eventually(lambda: ask(f"{url}/readyz")[0] == 200, 30)
        answers = {path: ask(url + path) for path in ("/healthz", "/metrics", "/stuck")}
        # Two at once, as `timeout` sends them; of two numbers, because the kernel may deliver two of one as one.
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGINT)

        assert process.wait(20) == 0, process.output
    assert (answers["/healthz"][0], answers["/stuck"][0]) == (200, 404)
    assert f'component="{name}"' in answers["/metrics"][1]


@pytest.mark.parametrize(("name", "section"), [("batch", "batch_process"), ("hand-over", "hand_over_process")])
def test_a_port_that_is_taken_names_the_setting(
    name: str, section: str, program: Callable[[str], ChildProcess]
) -> None:
    with program(name) as first:
        port = first.wait_for(r"^health on http://127\.0\.0\.1:([0-9]+)$")[1]
        second = program(name)
        variable = f"PENSTOCK_{section.upper()}__HEALTH_PORT"
        with ChildProcess(*second.args[2:], env={**AWS, variable: port}) as other:
            assert other.wait(20) == 2
            assert f"environment {variable}: {section}.health_port: cannot listen on 127.0.0.1:{port}" in other.output


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_without_kafka_a_program_waits_is_not_ready_and_ends_at_a_signal(
    name: str, program: Callable[[str], ChildProcess]
) -> None:
    nobody = {**AWS, "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}
    with ChildProcess(*program(name).args[2:], env=nobody) as process:
        url = process.wait_for(r"^health on (http://127\.0\.0\.1:[0-9]+)$")[1]
        process.wait_for("kafka.waiting")
        alive, ready = ask(f"{url}/healthz"), ask(f"{url}/readyz")
        process.signal(signal.SIGTERM)
        # Nothing is begun that would wait for a broker longer than a look at it.
        assert process.wait(5) == 0, process.output

    assert alive[0] == 200
    assert ready[0] == 503
    assert "log_unavailable: no Kafka broker answers at 127.0.0.1:" in ready[1]


def test_the_second_signal_leaves_no_files_of_a_hand_over(
    tmp_path: Path, program: Callable[[str], ChildProcess]
) -> None:
    def ends_at_once() -> bool:
        process.signal(signal.SIGINT)
        return process.process.poll() is not None

    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = program("hand-over")
        file = tmp_path / "penstock.yaml"
        document = yaml.safe_load(file.read_text("utf-8"))
        api = document["providers"]["bedrock"]["batch_api"]
        api["s3_endpoint_url"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        with made as process:
            url = process.wait_for(r"^health on (http://127\.0\.0\.1:[0-9]+)$")[1]
            process.wait_for("handover.serving")
            hand_one_over(load(file))
            # S3 takes the connection and says nothing: the step under way does not end.
            with silent.accept()[0]:
                process.signal(signal.SIGTERM)
                eventually(lambda: "shutting_down" in ask(f"{url}/readyz")[1])
                kept = list(tmp_path.glob("penstock-hand-over-*/*"))
                eventually(ends_at_once)

    assert process.process.returncode == 128 + signal.SIGINT
    assert kept
    assert list(tmp_path.glob("penstock-hand-over-*")) == []


def test_what_is_not_read_yet_and_what_ends_is_not_ready(tmp_path: Path) -> None:
    service = Service(build(parse("version: 1", "penstock.yaml"), {}, tmp_path))

    assert service.unready() == ["reads the jobs topic: what was asked for and is not done yet"]
    service.stop()
    assert service.unready() == ["shutting_down"]
