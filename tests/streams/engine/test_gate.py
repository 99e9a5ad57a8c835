"""The gate in front of a model or a route."""

import asyncio

from streams.engine.gate import FIRST_PROBE_S, MAX_PROBE_S, OUTAGE_FAILURES, Gate, Pass
from tests.streams.virtual_clock import elapsed_s, settled


def make_gate() -> tuple[Gate, list[str | None]]:
    changes: list[str | None] = []
    return Gate(changes.append), changes


def open_pass(gate: Gate) -> Pass:
    ticket = gate.ticket()
    assert ticket is not None
    return ticket


def fail(gate: Gate, times: int) -> None:
    for _ in range(times):
        gate.failed("provider_unavailable", open_pass(gate), is_fault=False)


def shut(gate: Gate) -> Pass:
    """Close it; return the pass of a call that was under way."""
    ticket = open_pass(gate)
    gate.failed("access_denied", ticket, is_fault=True)
    return ticket


async def probe(gate: Gate) -> Pass:
    ticket = await gate.enter(3600)
    assert ticket is not None
    assert ticket.is_probe
    return ticket


async def test_a_configuration_fault_closes_it_at_once() -> None:
    gate, changes = make_gate()
    shut(gate)

    assert (gate.reason, gate.ticket(), changes) == ("access_denied", None, ["access_denied"])


async def test_quick_refusals_are_no_outage_while_more_calls_are_under_way() -> None:
    """One call in five is refused at once; the other 256 are still being answered."""
    gate, changes = make_gate()
    gate.calling = 256
    fail(gate, 64)

    assert changes == []


async def test_a_run_as_long_as_the_calls_under_way_is_an_outage() -> None:
    gate, changes = make_gate()
    gate.calling = 100
    fail(gate, 100)

    assert changes == ["provider_unavailable"]


async def test_a_call_for_several_events_is_one_failure_of_the_eight_and_all_its_events_of_those_under_way() -> None:
    gate, changes = make_gate()
    gate.calling = 64
    for number in range(7 * 8):
        gate.failed("provider_unavailable", gate.ticket() or Pass(0), is_fault=False, is_echo=number % 8 > 0)

    assert changes == []

    for number in range(8):
        gate.failed("provider_unavailable", gate.ticket() or Pass(0), is_fault=False, is_echo=number > 0)

    assert changes == ["provider_unavailable"]


async def test_an_outage_is_eight_failures_in_a_row() -> None:
    gate, _ = make_gate()
    fail(gate, OUTAGE_FAILURES - 1)

    assert gate.reason is None

    fail(gate, 1)

    assert gate.reason == "provider_unavailable"


async def test_a_success_in_between_starts_the_count_again() -> None:
    gate, changes = make_gate()
    fail(gate, OUTAGE_FAILURES - 1)
    gate.succeeded(open_pass(gate))
    fail(gate, OUTAGE_FAILURES - 1)

    assert (gate.reason, changes) == (None, [])


async def test_one_probe_goes_at_a_time_however_long_it_takes() -> None:
    gate, _ = make_gate()
    shut(gate)
    first = await probe(gate)
    waits = [asyncio.ensure_future(gate.enter(3600)) for _ in range(5)]
    await asyncio.sleep(300)

    assert not any(wait.done() for wait in waits)

    gate.failed("access_denied", first, is_fault=True)
    await asyncio.sleep(2 * FIRST_PROBE_S)

    assert [wait.done() for wait in waits] == [True, False, False, False, False]

    for wait in waits:
        wait.cancel()


async def test_events_probe_in_the_order_of_their_arrival() -> None:
    gate, _ = make_gate()
    shut(gate)
    order: list[int] = []

    async def event(number: int) -> None:
        gate.failed("access_denied", await probe(gate), is_fault=True)
        order.append(number)

    await asyncio.gather(*(event(n) for n in range(5)))

    assert order == [0, 1, 2, 3, 4]


async def test_probes_come_less_and_less_often_up_to_a_limit() -> None:
    gate, _ = make_gate()
    shut(gate)
    start_s = asyncio.get_running_loop().time()
    probes: list[float] = []
    while len(probes) < 8:
        ticket = await probe(gate)
        probes.append(asyncio.get_running_loop().time() - start_s)
        gate.failed("access_denied", ticket, is_fault=True)

    assert probes == [1, 2, 4, 8, 16, 32, 62, 92]
    assert MAX_PROBE_S == 30


async def test_a_successful_probe_opens_it_and_wakes_everybody() -> None:
    gate, changes = make_gate()
    shut(gate)
    ticket = await probe(gate)
    waits = [asyncio.ensure_future(gate.enter(3600)) for _ in range(5)]
    await settled()
    gate.succeeded(ticket)

    assert await elapsed_s(asyncio.gather(*waits)) == 0
    assert [wait.result() for wait in waits] == [gate.ticket()] * 5
    assert changes == ["access_denied", None]


async def test_a_straggler_from_before_the_closing_does_not_open_it() -> None:
    gate, _ = make_gate()
    straggler = shut(gate)
    gate.succeeded(straggler)

    assert gate.reason == "access_denied"


async def test_a_straggler_from_before_the_closing_does_not_close_it_again() -> None:
    gate, _ = make_gate()
    straggler = shut(gate)
    gate.succeeded(await probe(gate))
    gate.failed("access_denied", straggler, is_fault=True)

    assert gate.reason is None


async def test_a_gate_that_flaps_is_probed_no_more_often_than_before() -> None:
    gate, _ = make_gate()
    shut(gate)
    for _ in range(4):
        gate.failed("access_denied", await probe(gate), is_fault=True)
    gate.succeeded(await probe(gate))
    shut(gate)

    assert await elapsed_s(probe(gate)) == 16


async def test_a_gate_that_was_open_for_long_is_probed_soon() -> None:
    gate, _ = make_gate()
    shut(gate)
    for _ in range(4):
        gate.failed("access_denied", await probe(gate), is_fault=True)
    gate.succeeded(await probe(gate))
    await asyncio.sleep(MAX_PROBE_S + 1)
    shut(gate)

    assert await elapsed_s(probe(gate)) == FIRST_PROBE_S


async def test_a_probe_without_a_verdict_lets_the_next_one_go() -> None:
    gate, _ = make_gate()
    shut(gate)
    gate.left(await probe(gate))

    assert await elapsed_s(probe(gate)) == FIRST_PROBE_S


async def test_a_probe_that_is_cancelled_before_its_call_lets_the_next_one_go() -> None:
    gate, _ = make_gate()
    shut(gate)
    wait = asyncio.ensure_future(gate.enter(3600))
    asyncio.get_running_loop().call_later(FIRST_PROBE_S, wait.cancel)
    await asyncio.wait([wait])

    assert await elapsed_s(probe(gate)) <= FIRST_PROBE_S


async def test_a_wait_ends_at_its_limit() -> None:
    gate, _ = make_gate()
    shut(gate)

    assert await elapsed_s(gate.enter(0.25)) == 0.25
    assert await gate.enter(0) is None


async def test_a_wait_whose_limit_has_passed_returns() -> None:
    gate, _ = make_gate()
    shut(gate)

    assert await elapsed_s(gate.enter(-1)) == 0


async def test_a_change_of_the_reason_is_told_once() -> None:
    gate, changes = make_gate()
    shut(gate)
    gate.failed("access_denied", await probe(gate), is_fault=True)
    gate.failed("model_not_found", await probe(gate), is_fault=True)

    assert changes == ["access_denied", "model_not_found"]


async def test_who_does_not_wait_any_more_takes_no_room() -> None:
    """Through a long outage the first of the line is patient, and thousands come and go behind it."""
    gate, _ = make_gate()
    shut(gate)
    patient = [asyncio.ensure_future(gate.enter(86400)) for _ in range(3)]
    for _ in range(20):
        hasty = [asyncio.ensure_future(gate.enter(0.01)) for _ in range(10)]
        await asyncio.sleep(0.005)
        hasty[0].cancel()
        await asyncio.sleep(0.01)

    assert len(gate._waiters) == len(patient)

    gate.open()

    assert {ticket is not None and ticket.is_probe for ticket in await asyncio.gather(*patient)} == {False}
