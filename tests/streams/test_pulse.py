"""The loop's pulse, felt from a thread."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from contracts.metrics import REGISTRY
from streams import pulse as pulse_module
from streams.pulse import Pulse
from tests.support import eventually, eventually_async


@pytest.fixture
def stalls() -> float:
    return REGISTRY.get_sample_value("penstock_loop_stalls_total") or 0.0


@pytest.fixture
async def pulse() -> "Iterator[Pulse]":  # type: ignore[misc]
    watching = Pulse(asyncio.get_running_loop(), limit_s=0.1, every_s=0.01)
    watching.start()
    yield watching
    watching.stop()
    watching._thread.join(5)


def block_until_noticed(stalls: float, lags: list[float], pulse: Pulse) -> None:
    """Hold the loop, as a call that blocks does."""
    eventually(lambda: (REGISTRY.get_sample_value("penstock_loop_stalls_total") or 0.0) > stalls, within_s=5)
    lags.append(pulse.lag_s)


async def test_a_loop_that_is_stuck_is_noticed_from_outside_with_the_place(
    pulse: Pulse, stalls: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    where: list[str] = []
    original = Pulse._where

    def note(self: Pulse) -> str:
        where.append(original(self))
        told.set()
        return where[-1]

    monkeypatch.setattr(Pulse, "_where", note)
    lags: list[float] = []
    with capture_logs():
        block_until_noticed(stalls, lags, pulse)
        await asyncio.to_thread(told.wait, 5)

    assert lags[0] >= 0.1
    assert "block_until_noticed" in where[0]
    assert len(where) == 1


async def test_a_loop_that_turns_is_not_late(pulse: Pulse, stalls: float) -> None:
    await eventually_async(lambda: pulse._last_s > 0)

    assert pulse.lag_s < 0.1
    assert (REGISTRY.get_sample_value("penstock_loop_stalls_total") or 0.0) == stalls


async def test_a_loop_that_turns_again_is_well_again(pulse: Pulse, stalls: float) -> None:
    with capture_logs():
        block_until_noticed(stalls, [], pulse)
    await eventually_async(lambda: pulse.lag_s < 0.1)


async def test_a_stop_just_before_a_question_ends_the_thread_though_the_loop_never_answers(pulse: Pulse) -> None:
    forget = pulse._beat.clear

    def stop_first() -> None:
        pulse.stop()
        forget()

    pulse._beat.clear = stop_first  # type: ignore[method-assign]
    pulse._thread.join(5)

    assert not pulse._thread.is_alive()


async def test_the_thread_ends_with_its_loop() -> None:
    loop = asyncio.new_event_loop()
    watching = Pulse(loop, limit_s=0.1, every_s=0.01)
    loop.close()
    watching.start()
    watching._thread.join(5)

    assert not watching._thread.is_alive()
    assert pulse_module._EVERY_S < 1
