"""`penstock up` on its embedded broker, with the other commands in a second terminal."""

import contextlib
import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateways.cli.programs import in_work
from tests.gateways.cli.marked import VARIABLE, pids_with
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ROOT, ChildProcess, eventually

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the working example in it."""
    (tmp_path / "penstock.yaml").write_bytes((ROOT / "penstock.yaml").read_bytes())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def command(folder: Path, mark: str, *args: str, **environ: str) -> ChildProcess:
    environ |= {VARIABLE: mark, "PYTHONPATH": str(ROOT)}
    return ChildProcess("gateways.cli", *args, cwd=folder, env=environ)


def state_of_worker(said: str) -> str:
    """Return what the worker that `up` has named says of itself."""
    found = re.search(r"^worker +(http://\S+)", said, re.MULTILINE)
    assert found, said
    with urllib.request.urlopen(f"{found[1]}/stuck", timeout=5) as answer:  # noqa: S310 - matched above
        state: str = json.load(answer)["state"]
    return state


@pytest.mark.long
def test_send_and_tail_in_other_terminals_need_no_copying(folder: Path, mark: str) -> None:
    with command(folder, mark, "up", "--port", "0") as up:
        up.wait_for("Ctrl-C ends everything", 60)
        assert state_of_worker(up.output) == "working"
        with command(folder, mark, "send", "--source", "support", "--count", "5") as send:
            assert send.wait(30) == 0, send.output
        with command(folder, mark, "tail", "results", "--from-beginning", "--count", "5") as tail:
            assert tail.wait(30) == 0, tail.output
            assert tail.output.count("  result (attempt 1") == 5
        up.signal(signal.SIGINT)

        assert up.wait(30) == 0, up.output
        assert "\nstopping: what is in work is finished first; Ctrl-C again ends everything at once\n" in up.output
        assert up.output.endswith("stopped\n")


def slow_model(**step: object) -> dict[str, str]:
    """Return variables by which every model call meets one step of the scripted provider."""
    return {"PENSTOCK_PROVIDERS__LOCAL__KIND": "fake", "PENSTOCK_PROVIDERS__LOCAL__SCRIPT": json.dumps([step])}


@contextlib.contextmanager
def with_a_call_in_flight(folder: Path, mark: str, model: dict[str, str]) -> Iterator[ChildProcess]:
    with command(folder, mark, "up", "--port", "0", **model) as up:
        up.wait_for("Ctrl-C ends everything", 60)
        with command(folder, mark, "send", "--source", "github", "--count", "1") as send:
            assert send.wait(30) == 0, send.output
        eventually(lambda: "1 event in a model call" in in_work(health_url(up.output)), 20)
        yield up


def health_url(said: str) -> str:
    found = re.search(r"^worker +(http://127.0.0.1:[0-9]+)", said, re.MULTILINE)
    assert found, said
    return found[1]


@pytest.mark.long
def test_ctrl_c_lets_a_paid_call_in_flight_end_and_says_what_it_waits_for(folder: Path, mark: str) -> None:
    with with_a_call_in_flight(folder, mark, slow_model(latency_s=14)) as up:
        up.signal(signal.SIGINT)
        up.wait_for(r"waiting for worker \(1 event in a model call\), 6[0-9] s at most; Ctrl-C ends", 10)

        assert up.wait(60) == 0
        assert "was killed" not in up.output
    # Whatever the answer is worth: its outcome was written, and the worker ended by itself.
    log = (folder / "build/up/worker.log").read_text()
    assert "event.finished" in log
    assert log.index("event.finished") > log.index("worker.stopping")
    assert "worker.stopped" in log


def test_ctrl_c_twice_at_once_waits_and_a_later_one_ends_at_once(folder: Path, mark: str) -> None:
    with with_a_call_in_flight(folder, mark, slow_model(hang=True)) as up:
        # Of two numbers, because the kernel may deliver two of one number as one.
        up.signal(signal.SIGINT)
        up.signal(signal.SIGTERM)
        up.wait_for("waiting for worker", 10)

        assert up.insist(signal.SIGINT, within_s=8) != 0
        assert "worker.stopped" not in (folder / "build/up/worker.log").read_text()


@pytest.mark.long
def test_on_a_real_kafka_it_makes_the_topics_first(folder: Path, mark: str, kafka: KafkaLab) -> None:
    own = {
        "PENSTOCK_KAFKA__TOPIC_PREFIX": kafka.prefix,
        "PENSTOCK_KAFKA__PARTITIONS": "3",
        "PENSTOCK_WORKER__APP_ID": kafka.prefix,
    }
    with command(folder, mark, "up", "--port", "0", "--kafka", kafka.bootstrap, **own) as up:
        up.wait_for("Ctrl-C ends everything", 90)
        assert f"made {kafka.prefix}.results.v1, 3 partitions" in up.output
        # The other terminal knows nothing of the overrides in the first one.
        with command(folder, mark, "send", "--source", "github", "--count", "3") as send:
            assert send.wait(30) == 0, send.output
        with command(folder, mark, "tail", "results", "--from-beginning", "--count", "3") as tail:
            assert tail.wait(40) == 0, tail.output
        up.signal(signal.SIGTERM)
        up.wait(40)


def test_a_program_that_dies_ends_everything_and_is_named(folder: Path, mark: str) -> None:
    with command(folder, mark, "up", "--port", "0") as up:
        up.wait_for("Ctrl-C ends everything", 60)
        worker = eventually(lambda: [pid for pid in pids_with(mark) if is_worker(pid)])[0]
        os.kill(worker, signal.SIGKILL)

        assert up.wait(40) == 1
        assert re.search(r"worker ended with exit code -9; its last lines:", up.output)


def is_worker(pid: int) -> bool:
    """Tell the worker from the shell that guards it, which has the same words behind its own."""
    line = Path(f"/proc/{pid}/cmdline").read_bytes()
    return b"\0-m\0streams\0worker\0" in line and not line.startswith(b"/bin/sh\0")


def test_kill_9_of_up_leaves_nothing_and_its_state_is_stale(folder: Path, mark: str) -> None:
    with command(folder, mark, "up", "--port", "0") as up:
        up.wait_for("Ctrl-C ends everything", 60)
        published = json.loads((folder / "build/up.json").read_text())
        up.signal(signal.SIGKILL)
        up.wait(5)
        eventually(lambda: not pids_with(mark), 10)
    with command(folder, mark, "send", "--source", "support", "--url", published["url"]) as send:
        assert send.wait(30) != 0
        assert "using the running" not in send.output
        assert "PENSTOCK_SECRET_SUPPORT" in send.output
