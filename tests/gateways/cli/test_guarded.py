"""Tests of gateways/cli/guarded.py: nothing outlives us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateways.cli.guarded import GuardedProcess
from tests.gateways.cli.marked import VARIABLE, new_mark, pids_with
from tests.support import eventually

pytestmark = pytest.mark.process

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(300)")
FAMILY = (sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)")


@pytest.fixture
def mark() -> str:
    return new_mark()


def environ(mark: str) -> dict[str, str]:
    return {**os.environ, VARIABLE: mark}


def test_stop_ends_the_program_and_what_it_started(tmp_path: Path, mark: str) -> None:
    process = GuardedProcess(FAMILY, environ(mark), tmp_path / "log")
    # The program, its child and the guard.
    eventually(lambda: len(pids_with(mark)) == 3, 10)

    process.ask_to_end()
    assert eventually(lambda: process.exit_code, 10) == -signal.SIGTERM
    process.kill()

    eventually(lambda: not pids_with(mark), 5)


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path, mark: str) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
    process = GuardedProcess((sys.executable, "-c", code), environ(mark), tmp_path / "log")
    eventually(lambda: "up" in process.last_lines(), 10)

    process.ask_to_end()
    process.kill()

    assert process.exit_code == -signal.SIGKILL
    eventually(lambda: not pids_with(mark), 5)


def test_kill_9_of_the_starter_ends_the_program(tmp_path: Path, mark: str) -> None:
    starter = (
        "import sys, os, time; from pathlib import Path; from gateways.cli.guarded import GuardedProcess\n"
        f"held = GuardedProcess({FAMILY!r}, dict(os.environ), Path({str(tmp_path / 'log')!r})); time.sleep(300)"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], env=environ(mark))
    # The starter, the program, its child and the guard.
    eventually(lambda: len(pids_with(mark)) == 4, 10)

    process.kill()
    process.wait()

    eventually(lambda: not pids_with(mark), 5)


def test_the_program_keeps_its_own_exit_code(tmp_path: Path, mark: str) -> None:
    process = GuardedProcess((sys.executable, "-c", "raise SystemExit(7)"), environ(mark), tmp_path / "log")

    assert eventually(lambda: process.exit_code, 10) == 7
    process.kill()
    eventually(lambda: not pids_with(mark), 5)


def test_ctrl_c_at_the_terminal_does_not_reach_the_program(tmp_path: Path, mark: str) -> None:
    process = GuardedProcess(SLEEPER, environ(mark), tmp_path / "log")

    assert os.getsid(process.pid) != os.getsid(0)
    process.kill()


def test_standard_input_of_the_program_is_empty(tmp_path: Path, mark: str) -> None:
    code = "import sys; print(repr(sys.stdin.read()))"
    process = GuardedProcess((sys.executable, "-c", code), environ(mark), tmp_path / "log")
    eventually(lambda: process.exit_code is not None, 10)

    assert process.last_lines() == "''"
    process.kill()


def test_stopping_twice_is_allowed(tmp_path: Path, mark: str) -> None:
    process = GuardedProcess(SLEEPER, environ(mark), tmp_path / "log")

    process.ask_to_end()
    process.ask_to_end()
    process.kill()
    process.kill()

    assert process.exit_code is not None
