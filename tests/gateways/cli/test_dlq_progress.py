"""What is told of a long command: a bar on a terminal, lines elsewhere."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from gateways.cli import dlq_progress
from gateways.cli.dlq_progress import Told


def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, _environ={})
    monkeypatch.setattr(dlq_progress, "Console", lambda **_: console)

    with Told("redriven", 400) as told:
        told.advance(100)
        told.advance(60)
    shown = screen.getvalue()

    assert "redriven" in shown
    assert "160/400" in shown
    # The cursor is shown again, and the bar's line erased.
    assert "\x1b[?25h" in shown
    assert shown.endswith("\x1b[1A\x1b[2K")
    assert capsys.readouterr() == ("", "")


def test_elsewhere_a_line_comes_every_five_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(dlq_progress, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(dlq_progress, "Console", lambda **_: Console(file=io.StringIO(), force_terminal=False))

    with Told("reading dead letters", 400) as told:
        for second in range(1, 13):
            now_s = 1000.0 + second
            told.advance(10)

    assert capsys.readouterr() == ("", "reading dead letters: 50 of 400\nreading dead letters: 100 of 400\n")
