"""The rule of SIGTERM and SIGINT: what is one wish, and what a second one does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from contracts.signals import ENDING, StopSignals
from tests.support import ROOT


def heard(*seconds: float) -> tuple[list[str], Callable[[], None]]:
    """Return what was called so far, and what sends a signal at the next of some moments."""
    calls: list[str] = []
    clock = iter(seconds)
    signals = StopSignals(
        lambda number: calls.append(f"begin {number.name}"),
        lambda number: calls.append(f"cut short {number.name}"),
        clock=lambda: next(clock),
    )
    numbers = iter((signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT))
    return calls, lambda: signals(next(numbers))


def test_two_at_once_are_one_wish_whatever_their_numbers() -> None:
    calls, send = heard(100.0, 100.049)
    send()
    send()

    assert calls == ["begin SIGTERM"]


def test_a_later_one_ends_at_once_and_may_come_twice_as_well() -> None:
    calls, send = heard(100.0, 100.051, 100.06, 101.0)
    for _ in range(4):
        send()

    assert calls == ["begin SIGTERM", "cut short SIGINT", "cut short SIGINT"]


def test_a_terminal_that_is_closed_is_a_wish_and_never_a_second_one() -> None:
    calls: list[str] = []
    clock = iter((100.0, 103.0, 104.0))
    signals = StopSignals(
        lambda number: calls.append(f"begin {number.name}"),
        lambda number: calls.append(f"cut short {number.name}"),
        clock=lambda: next(clock),
    )
    for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
        signals(number)

    assert calls == ["begin SIGHUP", "cut short SIGTERM"]


@pytest.mark.parametrize("is_ignored", [False, True], ids=["in a terminal", "under nohup"])
def test_an_event_loop_is_given_a_handler_for_each_that_is_not_ignored(
    *, is_ignored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    signals, added = StopSignals(lambda _: None), []
    signals.follow(lambda *handler: added.append(handler))

    wanted = ENDING if is_ignored else (*ENDING, signal.SIGHUP)
    assert added == [(number, signals, number) for number in wanted]


def test_the_former_handlers_come_back() -> None:
    begun: list[signal.Signals] = []
    former = [signal.getsignal(number) for number in ENDING]
    with StopSignals(begun.append).taken():
        os.kill(os.getpid(), signal.SIGTERM)

    assert begun == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in ENDING] == former


def test_ended_at_once_has_the_exit_code_of_the_signal_and_says_what_it_has_said() -> None:
    code = (
        "import sys; from signal import SIGINT; from contracts.signals import end_at_once; sys.stdout.write('half');"
        " end_at_once(SIGINT)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)

    assert (ended.returncode, ended.stdout) == (130, b"half")
