"""Tests of gateways/cli/stack.py: start, readiness, watching, order and limits of the end."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateways.cli.stack import Program, ProgramFailed, Stack
from tests.support import ROOT, eventually

pytestmark = pytest.mark.process

MODULE = "tests.gateways.cli.program"


def program(name: str, mode: str = "serve", ready_path: str = "/readyz", **more: Any) -> Program:
    return Program(name, (MODULE, "--mode", mode), ready_path, **more)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}, 5) as running:
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


def test_a_program_that_could_not_even_write_why_it_ended_is_explained(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.start(program("broker", "mute"))
    eventually(lambda: stack._running["broker"][1].exit_code is not None, 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=0))

    with pytest.raises(ProgramFailed, match=r"(?s)broker ended with exit code 1.*it has written nothing: the disk of "):
        stack.check()


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


def test_what_others_need_is_asked_to_end_when_they_have_ended(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []
    for name in ("broker", "gateway", "worker"):
        stack.start(program(name, "silent", is_needed=name == "broker"))
    processes = {name: process for name, (_, process) in stack._running.items()}
    for name, process in processes.items():

        def noted(name: str = name, end: Any = process.ask_to_end) -> None:
            asked.append((name, [other for other, one in processes.items() if one.exit_code is None]))
            end()

        monkeypatch.setattr(process, "ask_to_end", noted)

    stack.stop()

    assert [name for name, _ in asked] == ["worker", "gateway", "broker"]
    assert asked[-1] == ("broker", ["broker"])


def test_a_program_may_take_the_time_that_it_needs_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}) as stack:
        # Longer than until the end is explained; a limit for all of them would have killed it.
        stack.start(program("worker", "slow", stop_limit_s=30, in_work=lambda port: f"2 calls at {port > 0}"))
        stack.start(program("gateway"))
        for name in ("worker", "gateway"):
            stack.wait_ready(name, 20)
        worker = stack._running["worker"][1]

    assert worker.exit_code == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("waiting for worker (2 calls at True), ")
    assert said[0].endswith(" s at most; Ctrl-C ends everything at once")


def test_a_program_that_has_to_be_killed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}) as stack:
        stack.start(program("worker", "stubborn", stop_limit_s=0.2))
        stack.wait_ready("worker", 20)

    assert capsys.readouterr().err == "worker did not end within 0.2 s and was killed\n"


def test_without_what_all_need_nobody_is_waited_for_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}) as stack:
        stack.start(program("broker", is_needed=True))
        stack.start(program("worker", "stubborn", stop_limit_s=600))
        for name in ("broker", "worker"):
            stack.wait_ready(name, 20)
        broker = stack._running["broker"][1]
        os.kill(broker.pid, signal.SIGKILL)
        eventually(lambda: broker.exit_code is not None, 5)

    assert "worker did not end within 3 s and was killed" in capsys.readouterr().err


def end_by_signals(stack: Stack, monkeypatch: pytest.MonkeyPatch, heard: list[str]) -> None:
    """Have a second signal come while programs are asked to end, and a third one while they are waited for."""

    def third(_port: int) -> str:
        heard.append("third")
        signal.raise_signal(signal.SIGINT)
        return ""

    def second() -> None:
        heard.append("second")
        signal.raise_signal(signal.SIGINT)

    with stack:
        stack.start(program("worker", "stubborn", stop_limit_s=600, in_work=third))
        stack.wait_ready("worker", 20)
        monkeypatch.setattr(stack._running["worker"][1], "ask_to_end", second)
        signal.raise_signal(signal.SIGTERM)


def test_two_signals_at_once_are_one_and_a_later_one_kills_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack, heard = Stack(tmp_path, {**os.environ, "PYTHONPATH": str(ROOT)}), list[str]()

    with pytest.raises(KeyboardInterrupt):
        end_by_signals(stack, monkeypatch, heard)
    assert heard == ["second", "third"]
    assert not stack._running
