"""Tests of gateways/cli/stack.py: start, readiness, watching, order of the end."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateways.cli.stack import Program, ProgramFailed, Stack
from tests.support import ROOT, eventually

pytestmark = pytest.mark.process

MODULE = "tests.gateways.cli.program"


def program(name: str, mode: str = "serve", ready_path: str = "/readyz") -> Program:
    return Program(name, (MODULE, "--mode", mode), ready_path)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}, grace_s=5) as running:
        yield running


def test_a_program_is_ready_when_its_path_answers_200(stack: Stack) -> None:
    stack.start(program("one"))

    assert stack.wait_ready("one", 20) > 0


def test_a_program_without_ready_path_is_ready_when_its_port_file_is_there(stack: Stack, tmp_path: Path) -> None:
    stack.start(program("one", ready_path=""))

    assert stack.wait_ready("one", 20) == int((tmp_path / "one.port").read_text())


def test_a_start_that_fails_names_the_program_and_shows_its_last_lines(stack: Stack) -> None:
    stack.start(program("gateway", "fail"))

    with pytest.raises(ProgramFailed, match=r"(?s)gateway ended with exit code 1.*the disk is on fire.*gateway\.log"):
        stack.wait_ready("gateway", 20)


def test_a_program_that_is_never_ready_is_reported_with_its_own_reason(stack: Stack) -> None:
    stack.start(program("worker", "unready"))
    eventually(lambda: "listening" in stack._running["worker"][1].last_lines(), 20)

    with pytest.raises(ProgramFailed, match=r"worker was not ready within 0\.5 s .*503: not caught up"):
        stack.wait_ready("worker", 0.5)


def test_a_program_that_names_no_port_is_reported(stack: Stack) -> None:
    stack.start(program("worker", "silent"))

    with pytest.raises(ProgramFailed, match="it has not named its port"):
        stack.wait_ready("worker", 0.3)


def test_a_program_that_ends_later_is_noticed(stack: Stack) -> None:
    stack.start(program("worker"))
    stack.wait_ready("worker", 20)
    os.kill(stack._running["worker"][1].pid, 9)

    def noticed() -> bool:
        try:
            stack.check()
        except ProgramFailed as error:
            return "worker ended with exit code -9" in error.message
        return False

    eventually(noticed, 5)


def test_another_programs_death_ends_the_wait(stack: Stack) -> None:
    stack.start(program("broker", "fail"))
    stack.start(program("gateway", "silent"))

    with pytest.raises(ProgramFailed, match="broker ended"):
        stack.wait_ready("gateway", 20)


def test_an_old_port_file_is_not_taken_for_the_new_one(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "one.port").write_text("1")
    stack.start(program("one", "silent", ready_path=""))

    with pytest.raises(ProgramFailed, match="has not named its port"):
        stack.wait_ready("one", 0.3)


def test_programs_end_in_the_reverse_of_their_start(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    for name in ("broker", "gateway", "worker"):
        stack.start(program(name, "silent"))
        process = stack._running[name][1]
        stop = process.stop

        def noted(grace_s: float, name: str = name, stop: Callable[[float], bool] = stop) -> bool:
            ended.append(name)
            return stop(grace_s)

        monkeypatch.setattr(process, "stop", noted)

    stack.stop()

    assert ended == ["worker", "gateway", "broker"]


def test_a_program_that_has_to_be_killed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}, 0.2) as stack:
        stack.start(program("worker", "stubborn"))
        stack.wait_ready("worker", 20)

    assert capsys.readouterr().err == "worker did not end within 0.2 s and was killed\n"


def test_an_interrupt_while_stopping_still_ends_all(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.start(program("broker", "stubborn"))
    stack.start(program("worker", "stubborn"))
    processes = [process for _, process in stack._running.values()]

    def interrupted(_grace_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes[-1], "stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stack.stop()

    assert all(process.exit_code is not None for process in processes)
