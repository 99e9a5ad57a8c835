"""The virtual clock itself."""

import asyncio
import time

import pytest

from tests.streams.virtual_clock import VirtualClockLoop, elapsed_s


def _run(work: object) -> object:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)  # type: ignore[arg-type]


def test_an_hour_takes_no_time() -> None:
    start_s = time.monotonic()

    assert _run(elapsed_s(asyncio.sleep(3600))) == pytest.approx(3600)
    assert time.monotonic() - start_s < 1


def test_timers_fire_in_the_order_of_their_instants() -> None:
    seen: list[str] = []

    async def note(name: str, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        seen.append(name)

    async def main() -> None:
        await asyncio.gather(note("late", 100.5), note("early", 0.5), note("middle", 30))

    _run(main())

    assert seen == ["early", "middle", "late"]


def test_a_wait_that_nothing_can_end_fails_instead_of_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.streams.virtual_clock._THREAD_LIMIT_S", 0.01)

    with pytest.raises(AssertionError, match="nothing will ever bring about"):
        _run(asyncio.Event().wait())
