"""The gate in front of a model."""

import asyncio

from streams.engine.gate import FIRST_PROBE_S, MAX_PROBE_S, OUTAGE_FAILURES, Gate
from tests.streams.virtual_clock import elapsed_s


def make_gate() -> tuple[Gate, list[str | None]]:
    changes: list[str | None] = []
    return Gate(changes.append, asyncio.get_running_loop().time), changes


def fail(gate: Gate, times: int, *, is_fault: bool = False) -> None:
    for _ in range(times):
        gate.failed("provider_unavailable", is_fault=is_fault)


async def test_a_configuration_fault_closes_it_at_once() -> None:
    gate, changes = make_gate()
    gate.failed("access_denied", is_fault=True)

    assert (gate.reason, gate.admits(), changes) == ("access_denied", False, ["access_denied"])


async def test_an_outage_is_eight_failures_in_a_row() -> None:
    gate, _ = make_gate()
    fail(gate, OUTAGE_FAILURES - 1)

    assert gate.admits()

    fail(gate, 1)

    assert not gate.admits()


async def test_a_success_in_between_starts_the_count_again() -> None:
    gate, changes = make_gate()
    fail(gate, OUTAGE_FAILURES - 1)
    gate.succeeded()
    fail(gate, OUTAGE_FAILURES - 1)

    assert (gate.admits(), changes) == (True, [])


async def test_one_probe_at_a_time_goes_through_a_closed_gate() -> None:
    gate, _ = make_gate()
    fail(gate, OUTAGE_FAILURES)
    await asyncio.sleep(FIRST_PROBE_S)

    assert [gate.admits() for _ in range(5)] == [True, False, False, False, False]


async def test_probes_come_less_and_less_often_up_to_a_limit() -> None:
    gate, _ = make_gate()
    fail(gate, 1, is_fault=True)
    start_s = asyncio.get_running_loop().time()
    probes: list[float] = []
    while len(probes) < 8:
        await gate.wait(3600)
        if gate.admits():
            probes.append(asyncio.get_running_loop().time() - start_s)
            fail(gate, 1, is_fault=True)

    assert probes == [1, 2, 4, 8, 16, 32, 62, 92]
    assert MAX_PROBE_S == 30


async def test_a_successful_probe_opens_it_and_wakes_everybody() -> None:
    gate, changes = make_gate()
    fail(gate, OUTAGE_FAILURES)
    await asyncio.sleep(FIRST_PROBE_S)
    assert gate.admits()
    waits = [asyncio.ensure_future(gate.wait(3600)) for _ in range(5)]
    await asyncio.sleep(0)
    gate.succeeded()

    assert await elapsed_s(asyncio.gather(*waits)) == 0
    assert (gate.admits(), changes) == (True, ["provider_unavailable", None])


async def test_a_wait_ends_at_its_limit() -> None:
    gate, _ = make_gate()
    gate.failed("access_denied", is_fault=True)

    assert await elapsed_s(gate.wait(0.25)) == 0.25


async def test_a_wait_whose_limit_has_passed_returns() -> None:
    gate, _ = make_gate()
    gate.failed("access_denied", is_fault=True)

    assert await elapsed_s(gate.wait(-1)) == 0


async def test_a_change_of_the_reason_is_told_once() -> None:
    gate, changes = make_gate()
    gate.failed("access_denied", is_fault=True)
    gate.failed("access_denied", is_fault=True)
    gate.failed("model_not_found", is_fault=True)

    assert changes == ["access_denied", "model_not_found"]
