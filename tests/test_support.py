"""The helpers that other tests trust."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.support import ChildProcess, FakeClock, Leash, NotReachedError, eventually, eventually_async

pytestmark = pytest.mark.process


def test_eventually_returns_the_first_truthy_value() -> None:
    values = iter([0, "", "third"])

    assert eventually(lambda: next(values), within_s=1) == "third"


def test_eventually_polls_a_failing_assertion_and_chains_the_last_one() -> None:
    def never() -> bool:
        assert not reached
        return True

    reached = True

    with pytest.raises(NotReachedError) as caught:
        eventually(never, within_s=0.05)

    assert isinstance(caught.value.__cause__, AssertionError)


async def test_eventually_async_awaits_a_coroutine_function() -> None:
    values = iter([None, 7])

    async def read() -> int | None:
        return next(values)

    assert await eventually_async(read, within_s=1) == 7


def test_a_fake_clock_moves_both_its_readings_when_told() -> None:
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC), monotonic_s=5.0)

    clock.advance(1.5)

    assert clock() == 6.5
    assert clock.now() == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


def test_leaving_the_context_ends_a_program_that_ignores_sigterm() -> None:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"
    with ChildProcess("timeit", "-n1", "-r1", ignoring, grace_s=0.1) as child:
        child.wait_for("up")

    assert child.process.returncode == -signal.SIGKILL


def test_output_that_does_not_come_is_reported_with_what_came() -> None:
    with ChildProcess("timeit", "-n1", "-r1", "print('hello')") as child, pytest.raises(NotReachedError, match="hello"):
        child.wait_for("goodbye", within_s=10)


def test_a_leashed_process_dies_with_its_holder() -> None:
    holder = (
        "import os, subprocess, signal; from tests.support import Leash;"
        "p = subprocess.Popen(['sleep', '60'], start_new_session=True); Leash(p.pid); print(p.pid, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", holder], capture_output=True, text=True, check=False)

    assert eventually(lambda: not _is_alive(int(run.stdout)), within_s=5)


def test_a_released_process_lives_on() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        Leash(process.pid).release()

        assert process.poll() is None
        process.kill()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A container's init may leave the dead unreaped.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
