"""How fast letters are put back, by a clock that only naps move."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateways.cli import dlq_resolve
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_resolve import Stop, Tally, carry_out
from gateways.cli.dlq_units import Discard
from gateways.cli.dlq_write import Refusal, Unit
from tests.gateways.cli.records import letter


class Clock:
    """Stands in for `time`."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, nap_s: float) -> None:
        self.now_s += nap_s


class Paper:
    """A writer that notes when how many were written; the first writes take some time."""

    def __init__(self, clock: Clock, takes_s: Sequence[float]) -> None:
        self.written: list[tuple[float, int]] = []
        self._clock = clock
        self._takes_s = iter(takes_s)

    def write(self, units: Sequence[Unit]) -> list[Refusal]:
        self.written.append((round(self._clock.now_s - 1000, 6), len(units)))
        self._clock.now_s += next(self._takes_s, 0.0)
        return []


def written(
    monkeypatch: pytest.MonkeyPatch, count: int, rate: float | None, takes_s: Sequence[float] = ()
) -> list[tuple[float, int]]:
    """Return after how many seconds how many letters were written."""
    clock = Clock()
    monkeypatch.setattr(dlq_resolve, "time", clock)
    paper: Any = Paper(clock, takes_s)
    found = [one for one in (read_letter(letter()) for _ in range(count)) if isinstance(one, Letter)]
    tally = Tally()

    carry_out(paper, found, Discard("me", ""), rate, Told("discarded", count), Stop(), tally)

    assert tally.done == count
    return paper.written  # type: ignore[no-any-return]


def test_a_rate_is_letters_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, 40, 20) == [(0.0, 10), (0.5, 10), (1.0, 10), (1.5, 10)]


def test_a_rate_below_one_waits_between_two_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, 3, 0.25) == [(0.0, 1), (4.0, 1), (8.0, 1)]


def test_time_that_the_log_takes_counts_and_is_not_caught_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, 30, 20, takes_s=[0.2, 0.2]) == [(0.0, 10), (0.5, 10), (1.0, 10)]
    assert written(monkeypatch, 30, 20, takes_s=[2.0]) == [(0.0, 10), (2.0, 10), (2.5, 10)]


def test_without_a_rate_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(monkeypatch, 250, None) == [(0.0, 100), (0.0, 100), (0.0, 50)]
