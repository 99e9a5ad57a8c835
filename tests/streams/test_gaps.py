"""Gaps around the engine that a hostile review found."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.transport.drivers.aiokafka import Consumer

from contracts.errors import ProviderUnavailable, Throttled
from contracts.settings import Retry as Policy
from streams import shell as shell_module
from streams.outcome import Expire, Retry, decide
from tests.streams.test_membership import Bench

POLICY = Policy(max_attempts=9, base_s=8, max_s=60)


@pytest.mark.parametrize("attempts", range(1, 9))
def test_a_wait_that_jitter_draws_never_ends_behind_the_deadline(attempts: int) -> None:
    error = ProviderUnavailable("down")
    decisions = [
        decide(error, failures=attempts, age_s=0, left_s=2, policy=POLICY, gate_reason=None) for _ in range(200)
    ]

    assert all(isinstance(decision, Retry) and decision.wait_s <= 2 for decision in decisions)


def test_a_provider_that_asks_to_come_back_behind_the_deadline_ends_the_event() -> None:
    error = Throttled("slow down", retry_after_s=5)

    assert decide(error, failures=1, age_s=0, left_s=5, policy=POLICY, gate_reason=None) == Expire()


async def test_two_that_ask_for_the_hand_over_wait_for_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM and a rebalance at the same time: the second must not let the group move on under the first's drain."""
    bench = Bench(monkeypatch)
    bench.assign()
    bench.blocked = asyncio.Event()
    await bench.submit(3)
    first = asyncio.ensure_future(bench.membership.hand_over())
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(bench.membership.hand_over())
    await asyncio.sleep(0.01)

    assert not second.done()

    bench.blocked.set()
    await asyncio.gather(first, second)

    assert ("work", 3) in bench.log


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_a_rebalance_while_the_worker_stops_hands_over_first(
    monkeypatch: pytest.MonkeyPatch, *, is_stopping: bool
) -> None:
    """Faust itself skips the hand-over then; without it the group moves on under a drain that still goes on."""
    order: list[str] = []

    async def revoked(_self: object, _revoked: object) -> None:
        order.append("faust")

    class Listener:
        async def hand_over(self) -> None:
            order.append("hand over")

    monkeypatch.setattr(Consumer, "on_partitions_revoked", revoked)
    kind = shell_module._consumer_class(cast("Any", None), cast("Any", Listener()))
    consumer = kind.__new__(kind)
    consumer.app = cast("Any", SimpleNamespace(should_stop=is_stopping))
    await consumer.on_partitions_revoked(set())

    assert order == (["hand over", "faust"] if is_stopping else ["faust"])
