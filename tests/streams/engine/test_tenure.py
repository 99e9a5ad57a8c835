"""The right to work."""

import asyncio

import pytest

from streams.engine.tenure import Tenure, TenureLostError
from tests.streams.virtual_clock import elapsed_s


async def test_permission_comes_at_once_in_the_ordinary_case() -> None:
    assert await elapsed_s(Tenure(1).permission()) == 0


async def test_a_stale_lease_is_waited_out() -> None:
    is_valid = False
    tenure = Tenure(1, lambda: is_valid)
    waiting = asyncio.ensure_future(tenure.permission())
    await asyncio.sleep(60)

    assert not waiting.done()

    is_valid = True
    await asyncio.sleep(0.1)

    assert waiting.done()


async def test_a_wait_for_the_lease_ends_with_the_tenure() -> None:
    tenure = Tenure(1, lambda: False)
    waiting = asyncio.ensure_future(tenure.permission())
    await asyncio.sleep(5)
    tenure.end()

    with pytest.raises(TenureLostError):
        await waiting


async def test_there_is_no_permission_after_the_end_even_under_a_good_lease() -> None:
    tenure = Tenure(1)
    tenure.end()

    assert (tenure.may_work, tenure.is_over) == (False, True)
    with pytest.raises(TenureLostError):
        await tenure.permission()
