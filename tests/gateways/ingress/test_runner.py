"""The process: which doors, its health page, signals, an orderly end."""

import json
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import ConfigError
from contracts.settings import Settings, load
from gateways.cli.main import run as penstock
from gateways.ingress.runner import chosen
from tests.awslab.fixtures import unique
from tests.awslab.server import REGION, AwsLab, Queue, failing
from tests.support import ChildProcess, eventually

DOOR = {"kind": "sqs", "queue_url": "http://127.0.0.1:1/1/orders", "region": REGION}


def settings_with(**doors: dict[str, Any]) -> Settings:
    return Settings.model_validate({"version": 1, "ingress": doors})


def test_all_doors_run_unless_some_are_named() -> None:
    settings = settings_with(orders=DOOR, uploads=DOOR)

    assert chosen(settings, ()) == ["orders", "uploads"]
    assert chosen(settings, ("uploads", "uploads")) == ["uploads"]


def test_an_unknown_door_is_named_with_those_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"no door 'order' in section ingress; there are: orders"):
        chosen(settings_with(orders=DOOR), ("order",))


def test_without_any_door_there_is_nothing_to_run() -> None:
    with pytest.raises(ConfigError, match="has no door to run"):
        chosen(settings_with(), ())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"ingress": {"orders": DOOR | {"wait_s": 20}}, "ingress_process": {"drain_timeout_s": 20}}, "wait_s"),
        ({"ingress": {"orders": DOOR | {"kind": "kinesis"}}}, "ingress.orders.kind"),
        ({"lambda_door": {"target": "sqs"}}, "lambda_door.queue_url"),
        ({"lambda_door": {"source": "nobody"}}, "lambda_door.source"),
        ({"sources": {"topic": {"scheme": "sns", "type": "t"}}}, "the section `sns` belong together"),
        (
            {"sources": {"topic": {"scheme": "sns", "type": "t", "sns": {"topic_arns": ["arn:aws:sqs:x"]}}}},
            "sources.topic.sns.topic_arns",
        ),
        ({"sources": {"bus": {"scheme": "api-key", "type": "t"}}}, "secrets: at least one is needed"),
    ],
)
def test_what_does_not_fit_is_said_with_its_place(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump({"version": 1, **change}), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert line in str(caught.value)


def test_the_command_says_what_is_wrong_with_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "ingress": {"orders": DOOR}}), encoding="utf-8")

    assert penstock(["ingress", "order", "--config", str(file)]) == 2
    assert "there is no door 'order'" in capsys.readouterr().err


def configuration(aws: AwsLab, queue: Queue, folder: Path) -> str:
    """Write a file with one door, and return its path."""
    door = DOOR | {"queue_url": queue.url, "endpoint_url": aws.url, "wait_s": 1, "visibility_timeout_s": 30}
    document = {"version": 1, "ingress": {"orders": door}, "ingress_process": {"health_port": 0}}
    file = folder / "penstock.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(file)


def ask(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own page
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.process
def test_sigterm_lets_a_message_in_progress_get_its_ack(aws: AwsLab, tmp_path: Path) -> None:
    queue = aws.queue(unique("q"))
    queue.send("one")
    with ChildProcess("tests.gateways.ingress.door_process", configuration(aws, queue, tmp_path), "--hold") as door:
        url = door.wait_for(r"health on (http://127\.0\.0\.1:\d+)")[1]
        eventually(lambda: queue.counts() == (0, 1))
        door.signal(signal.SIGTERM)
        door.wait_for("ingress.stopping")
        unready = ask(f"{url}/readyz")
        door.signal(signal.SIGUSR1)

        assert door.wait(30) == 0
    assert (unready[0], json.loads(unready[1])["problems"]) == (503, ["shutting_down"])
    assert queue.is_empty


@pytest.mark.process
def test_a_second_signal_ends_it_at_once_and_the_message_stays(aws: AwsLab, tmp_path: Path) -> None:
    queue = aws.queue(unique("q"))
    queue.send("one")
    with ChildProcess("tests.gateways.ingress.door_process", configuration(aws, queue, tmp_path), "--hold") as door:
        eventually(lambda: queue.counts() == (0, 1), 30)
        door.signal(signal.SIGINT)
        door.wait_for("ingress.stopping")

        assert door.insist(signal.SIGTERM) == 128 + signal.SIGTERM
    assert queue.counts() == (0, 1)


@pytest.mark.process
def test_the_health_page_tells_a_process_that_lives_from_doors_that_work(aws: AwsLab, tmp_path: Path) -> None:
    queue = aws.queue(unique("q"))
    with ChildProcess("tests.gateways.ingress.door_process", configuration(aws, queue, tmp_path)) as door:
        url = door.wait_for(r"health on (http://127\.0\.0\.1:\d+)")[1]
        eventually(lambda: ask(f"{url}/readyz")[0] == 200)
        with aws.fault(failing("ReceiveMessage", "AccessDenied", times=1_000)):
            eventually(lambda: ask(f"{url}/readyz")[0] == 503)
            problems = json.loads(ask(f"{url}/readyz")[1])["problems"]
            alive = ask(f"{url}/healthz")[0]
        queue.send("one")
        eventually(
            lambda: b'penstock_ingress_messages_total{door="orders",outcome="accepted"} 1.0' in ask(f"{url}/metrics")[1]
        )

    assert (problems, alive) == (["orders: access_denied"], 200)
