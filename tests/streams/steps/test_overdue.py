"""Calls that do not end by themselves are cut off."""

import asyncio

from streams.steps.overdue import overdue
from tests.streams.virtual_clock import VirtualClockLoop, settled


def virtually(coroutine: object) -> object:
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(coroutine)  # type: ignore[arg-type]  # each test passes a coroutine of its own


async def boxed(limit_s: float, work_s: float) -> str:
    """Do what steps/invoke does."""
    calls = overdue()
    call = calls.watch(limit_s)
    try:
        await asyncio.sleep(work_s)
    except asyncio.CancelledError:
        return "overdue" if call.take_back() else "cut by somebody else"
    finally:
        calls.leave(call)
    return "in time"


def test_an_overdue_call_is_cut_within_a_second_of_its_limit() -> None:
    async def both() -> tuple[str, str, bool]:
        began_s = asyncio.get_running_loop().time()
        slow, quick = await asyncio.gather(boxed(10, 3600), boxed(10, 9))
        return slow, quick, 10 <= asyncio.get_running_loop().time() - began_s <= 11.01

    assert virtually(both()) == ("overdue", "in time", True)


def test_a_task_goes_on_after_its_overdue_call() -> None:
    async def twice() -> list[str]:
        return [await boxed(1, 3600), await boxed(10, 5), await boxed(1, 3600)]

    assert virtually(twice()) == ["overdue", "in time", "overdue"]


def test_a_cancellation_by_somebody_else_is_not_taken_for_the_limit() -> None:
    async def cut() -> str:
        task = asyncio.ensure_future(boxed(10, 3600))
        await settled()
        task.cancel()
        return await task

    assert virtually(cut()) == "cut by somebody else"


def test_the_sweep_ends_with_the_last_call() -> None:
    async def idle() -> tuple[str, object]:
        found = await boxed(10, 1)
        await asyncio.sleep(5)
        return found, overdue()._timer

    assert virtually(idle()) == ("in time", None)
