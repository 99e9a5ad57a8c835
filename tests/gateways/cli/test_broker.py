"""`penstock broker`: says where it listens and what it cannot do, and ends when told."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer

from gateways.cli.main import run
from tests.support import ROOT, ChildProcess, eventually

pytestmark = pytest.mark.embedded

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "gateways.cli", "broker", "--exit-with-parent"])
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_ends_within_a_second(number: signal.Signals, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    args = ("gateways.cli", "broker", "--port-file", str(port_file), "--topic", "mine:7")
    with ChildProcess(*args) as child:
        address = child.wait_for(r"^listening on (127\.0\.0\.1:(\d+))$")
        child.wait_for("memory only")
        client = Producer({"bootstrap.servers": address[1], "log_level": 0})
        assert len(client.list_topics(timeout=5).topics["mine"].partitions) == 7
        assert port_file.read_text(encoding="ascii") == address[2]

        started_s = time.monotonic()
        child.signal(number)
        assert child.wait(5) == 0
        assert time.monotonic() - started_s < 1


def test_it_ends_with_its_parent_when_asked_to() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().removeprefix("listening on ").strip()
        parent.kill()

    client = Producer({"bootstrap.servers": address, "log_level": 0})
    eventually(lambda: _is_gone(client), within_s=5)


def _is_gone(client: Producer) -> bool:
    try:
        client.list_topics(timeout=0.3)
    except KafkaException:
        return True
    return False


@pytest.mark.parametrize("value", ["mine", "mine:", "mine:x", ":4", "mine:0", "mine:-1", "mine:1001"])
def test_a_topic_that_is_not_written_right_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["broker", "--topic", value]) == 2
    assert "NAME:PARTITIONS" in capsys.readouterr().err


def test_a_port_file_that_cannot_be_written_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["broker", "--port-file", "/nowhere/port"]) == 1
    said = "Error: --port-file /nowhere/port cannot be written: No such file or directory\n"
    assert capsys.readouterr().err == said
