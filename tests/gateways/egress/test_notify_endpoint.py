"""When an endpoint fails, is disabled, and comes back."""

import asyncio

import pytest

from contracts.errors import LogUnavailable
from contracts.payloads import EndpointState
from gateways.egress import notify_endpoint
from gateways.egress.notify_endpoint import MIN_FAILURES, Endpoint, MemoryBoard
from tests.support import FakeClock, eventually_async

DAYS_5 = 5 * 86400.0


class _CountingBoard(MemoryBoard):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[str, str]] = []

    async def put(self, state: EndpointState) -> None:
        await super().put(state)
        self.written.append((state.status, state.reason))


class _SlowBoard(MemoryBoard):
    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.kept: list[str] = []

    async def put(self, state: EndpointState) -> None:
        await super().put(state)
        await self.gate.wait()
        self.kept.append(state.status)


class _AwayBoard(MemoryBoard):
    async def put(self, state: EndpointState) -> None:
        await super().put(state)
        message = "away"
        raise LogUnavailable(message)


async def test_an_outage_is_written_once_when_it_begins_and_once_when_it_ends() -> None:
    board, clock = _CountingBoard(), FakeClock()
    endpoint = Endpoint("crm", board, DAYS_5, clock.now)
    await endpoint.succeeded()
    for _ in range(20):
        await endpoint.failed("timeout")
    for _ in range(20):
        await endpoint.succeeded()

    assert board.written == [("failing", "timeout"), ("active", "delivered")]


async def test_days_of_only_failures_disable_it() -> None:
    board, clock = MemoryBoard(), FakeClock()
    endpoint = Endpoint("crm", board, DAYS_5, clock.now)
    for _ in range(MIN_FAILURES):
        await endpoint.failed("timeout")
    clock.advance(DAYS_5 - 1)
    await endpoint.failed("timeout")
    before = endpoint.disabled
    clock.advance(1)
    await endpoint.failed("timeout")
    after = endpoint.disabled

    assert before is None
    assert after is not None
    assert after.reason == "failing"


async def test_a_success_in_between_starts_the_days_anew() -> None:
    clock = FakeClock()
    endpoint = Endpoint("crm", MemoryBoard(), DAYS_5, clock.now)
    for _ in range(3):
        for _ in range(MIN_FAILURES):
            await endpoint.failed("timeout")
        clock.advance(DAYS_5 - 1)
        await endpoint.succeeded()

    assert endpoint.disabled is None


async def test_two_failures_of_a_sleepy_endpoint_days_apart_do_not_disable_it() -> None:
    clock = FakeClock()
    endpoint = Endpoint("crm", MemoryBoard(), DAYS_5, clock.now)
    await endpoint.failed("timeout")
    clock.advance(10 * DAYS_5)
    await endpoint.failed("timeout")

    assert endpoint.disabled is None


async def test_410_disables_it_at_once_and_it_stays_so_after_a_restart() -> None:
    board, clock = MemoryBoard(), FakeClock()
    await Endpoint("crm", board, DAYS_5, clock.now).gone()

    restarted = Endpoint("crm", board, DAYS_5, clock.now)

    assert restarted.disabled is not None
    assert (restarted.disabled.reason, restarted.disabled.since) == ("gone", "2026-01-01T00:00:00.000Z")


async def test_a_late_success_does_not_enable_what_was_disabled() -> None:
    clock = FakeClock()
    endpoint = Endpoint("crm", MemoryBoard(), DAYS_5, clock.now)
    await endpoint.gone()
    await endpoint.succeeded()

    assert endpoint.disabled is not None


async def test_an_operator_enables_it_again() -> None:
    board, clock = MemoryBoard(), FakeClock()
    endpoint = Endpoint("crm", board, DAYS_5, clock.now)
    await endpoint.gone()
    await board.put(EndpointState(name="crm", status="active", since="2026-01-02T00:00:00Z", by="ann"))

    assert endpoint.disabled is None


async def test_the_outage_before_a_restart_counts() -> None:
    board, clock = MemoryBoard(), FakeClock()
    await Endpoint("crm", board, DAYS_5, clock.now).failed("timeout")
    clock.advance(DAYS_5)
    restarted = Endpoint("crm", board, DAYS_5, clock.now)
    for _ in range(MIN_FAILURES):
        await restarted.failed("timeout")

    assert restarted.disabled is not None


async def test_a_board_that_is_away_does_not_stop_deliveries() -> None:
    clock = FakeClock()
    endpoint = Endpoint("crm", _AwayBoard(), DAYS_5, clock.now)
    await endpoint.failed("timeout")
    await endpoint.gone()

    assert endpoint.disabled is not None


async def test_a_state_that_takes_long_to_be_kept_holds_nobody_up_and_is_kept_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A callback that was taken would run into its time limit, and be sent once more."""
    monkeypatch.setattr(notify_endpoint, "_KEPT_WITHIN_S", 0.01)
    board = _SlowBoard()
    endpoint = Endpoint("crm", board, DAYS_5, FakeClock().now)
    async with asyncio.timeout(5):
        await endpoint.failed("timeout")
        await endpoint.succeeded()
    assert board.kept == []

    board.gate.set()

    await eventually_async(lambda: board.kept == ["failing", "active"])
