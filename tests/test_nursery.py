"""A program that is forked is the one that `python -m` would have started."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nursery import Nursery
from tests.support import ROOT, ChildProcess, eventually

pytestmark = pytest.mark.process

# A program of its own folder.
PROGRAM = "nursed"
_TELL = """
import json, os, signal, sys, threading
with open(os.environ["TEST_TOLD"], "w") as told:
    files = {name: os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
    json.dump([
        sys.argv, sys.path, os.getcwd(), sys.stdin.read(), __name__, sorted(os.environ.items()),
        [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
        os.getsid(0) == os.getpgid(0) == os.getpid(), threading.active_count(), sorted(files), os.isatty(1),
    ], told)
print("out"), print("err", file=sys.stderr)
"""
_ENDLESS = "print('up'); import time; time.sleep(60)"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with pytest.MonkeyPatch.context() as patch:
        # One that its programs do not have.
        patch.setenv("TEST_FORMER", "1")
        made = Nursery(ROOT)
    yield made
    made.close()


def program(folder: Path, code: str) -> ChildProcess:
    """Return a program with this code, not started yet."""
    (folder / f"{PROGRAM}.py").write_text(code, encoding="utf-8")
    env = {"TEST_TOLD": str(folder / "told.json"), "PYTHONPATH": str(ROOT)}
    return ChildProcess(PROGRAM, "one", "two", env=env, cwd=folder)


@pytest.fixture(params=["forked", "started"])
def way(nursery: Nursery, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ChildProcess, "nursery", nursery if request.param == "forked" else None)
    name: str = request.param
    return name


def test_it_has_the_surroundings_of_one_that_is_started(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for nurse in (nursery, None):
        monkeypatch.setattr(ChildProcess, "nursery", nurse)
        with program(tmp_path, _TELL) as child:
            assert child.wait() == 0, child.output
        found.append((json.loads((tmp_path / "told.json").read_text("utf-8")), child.output))

    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("code", "exit_code", "output"),
    [("import sys; sys.exit('no')", 1, "no\n"), ("raise SystemExit(3)", 3, ""), ("import os; os._exit(7)", 7, "")],
)
def test_it_ends_with_its_exit_code(tmp_path: Path, way: str, code: str, exit_code: int, output: str) -> None:
    with program(tmp_path, code) as child:
        assert (child.wait(), child.output) == (exit_code, output), way


def test_a_signal_that_ends_it_is_its_exit_code_and_one_that_comes_later_is_for_nobody(
    tmp_path: Path, way: str
) -> None:
    with program(tmp_path, _ENDLESS) as child:
        child.wait_for("up")
        assert child.process.poll() is None, way
        child.signal(signal.SIGKILL)

        assert child.wait() == child.process.poll() == -signal.SIGKILL
        child.signal(signal.SIGTERM)


@pytest.mark.parametrize("name", ["PATH", "TZ", "PYTHONPATH", "TMPDIR"])
def test_one_with_a_variable_that_counts_at_the_start_is_not_forked(nursery: Nursery, name: str) -> None:
    assert nursery.takes({**os.environ, "PENSTOCK_X": "1", "PYTHONPATH": str(ROOT)})
    assert not nursery.takes({**os.environ, name: "/elsewhere"})


def test_when_the_nursery_has_ended_its_programs_are_taken_for_killed_and_no_more_are_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nursery = Nursery(ROOT)
    monkeypatch.setattr(ChildProcess, "nursery", nursery)
    with program(tmp_path, _ENDLESS) as child:
        child.wait_for("up")
        assert nursery._process is not None
        nursery._process.kill()

        assert eventually(child.process.poll) == -signal.SIGKILL
        with pytest.raises(RuntimeError, match="has ended"), program(tmp_path, ""):
            pass
    nursery.close()
