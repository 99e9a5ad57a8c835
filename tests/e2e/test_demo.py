"""`penstock demo` as a person runs it: it ends with the table, and whatever stops it, nothing stays behind."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.gateways.cli.marked import VARIABLE, pids_with
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.timeout(180)

# What the demo has said when it is interrupted: each is another stage of starting, working and stopping.
STAGES = ("Penstock demo", "ok     fm-stub", "202    support", "What became of each webhook")


def demo(mark: str, *options: str) -> ChildProcess:
    return ChildProcess("gateways.cli", "demo", *options, env={VARIABLE: mark})


@pytest.mark.long
def test_it_ends_by_itself_with_every_event_accounted_for(mark: str) -> None:
    started_s = time.monotonic()
    with demo(mark) as running:
        code = running.wait(90)
        output = running.output

    assert code == 0, output
    assert "12 accepted = 11 result + 1 dead letter + 0 expired, one outcome each" in output
    assert output.count("\n  202    ") == 12
    assert output.count("\n  401    ") == 1
    assert "undecodable: not JSON" in output
    assert "no language model" in output
    assert "->  succeeded" in output
    assert "FAILED" not in output
    # The promise is 30 s on an idle machine; a shared one gets some more.
    assert time.monotonic() - started_s < 60


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_at_any_stage_leaves_nothing_running(mark: str, stage: str) -> None:
    with demo(mark) as running:
        running.wait_for(stage, 60)
        running.signal(signal.SIGINT)

        assert running.wait(20) in {130, 0}, running.output
        assert "Traceback" not in running.output
    eventually(lambda: not pids_with(mark), 5)


@pytest.mark.long
def test_ctrl_c_at_random_moments_leaves_nothing_running(mark: str) -> None:
    for delay_s in sorted(random.uniform(0.05, 6.0) for _ in range(3)):  # noqa: S311 - a moment, no secret
        with demo(mark) as running:
            # Not a wait for a state: the moment itself is what is tried.
            time.sleep(delay_s)
            running.signal(signal.SIGINT)
            running.wait(20)
        eventually(lambda: not pids_with(mark), 10)


def test_kill_9_of_the_demo_leaves_nothing_running(mark: str) -> None:
    with demo(mark) as running:
        running.wait_for("ok     worker", 60)
        assert len(pids_with(mark)) > 4
        running.signal(signal.SIGKILL)
        running.wait(5)

        eventually(lambda: not pids_with(mark), 10)


def test_sigterm_ends_it_in_order(mark: str) -> None:
    with demo(mark) as running:
        running.wait_for("ok     gateway", 60)
        running.signal(signal.SIGTERM)

        assert running.wait(20) == 143
        assert "Traceback" not in running.output


def test_logs_are_kept_where_asked(mark: str, tmp_path: Path) -> None:
    with demo(mark, "--logs", str(tmp_path / "logs")) as running:
        running.wait_for("ok     gateway", 60)
        running.signal(signal.SIGINT)
        running.wait(20)

    assert {"broker.log", "fm-stub.log", "gateway.log"} <= {path.name for path in (tmp_path / "logs").iterdir()}


def test_a_program_that_cannot_start_is_named_with_its_last_lines(mark: str, tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "penstock.yaml").read_text(encoding="utf-8")
    text = source.replace("examples/", f"{Path(__file__).parents[2]}/examples/")
    # A secret that cannot be read: only the gateway needs it.
    broken = text.replace("env:PENSTOCK_API_KEY", f"file:{tmp_path}/not-there")
    (tmp_path / "penstock.yaml").write_text(broken, encoding="utf-8")
    with demo(mark, "--config", str(tmp_path / "penstock.yaml")) as running:
        assert running.wait(60) == 1
        output = running.output

    assert "gateway ended with exit code" in output
    assert "not-there" in output
    assert "whole log: " in output
