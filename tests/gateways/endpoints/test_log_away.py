"""While nothing is confirmed, nobody waits for it, whichever way in; and nobody is refused for longer than that."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from contracts.errors import LogUnavailable
from contracts.settings import Settings
from gateways.egress.outcomes import Accepted
from producers.memory import MemoryProducer
from tests.gateways.driver import CONFIGURATION, Answer, Gateway, as_caller
from tests.support import FakeClock, eventually_async

AFTER_S = 8.0
# So long a request would wait for its ack.
PATIENCE_S = 5.0
DOORS: dict[str, Callable[[Gateway, int], Awaitable[Answer]]] = {
    "webhook": lambda gateway, number: gateway.webhook(b'{"number":%d}' % number),
    "events": lambda gateway, number: _as_caller(gateway, "/v1/events", number),
    "invoke": lambda gateway, number: _as_caller(gateway, "/v1/invoke", number, prefer="respond-async"),
}


async def _as_caller(gateway: Gateway, path: str, number: int, **more: str) -> Answer:
    headers = as_caller(ce_type="t", ce_id=f"e-{number}", penstock_lane="standard", **more)
    return await gateway.call("POST", path, headers, b"{}")


class Away:
    """A gateway whose broker confirms nothing, and a request that waits for it."""

    def __init__(self, door: str) -> None:
        self.clock = FakeClock()
        patience = CONFIGURATION["gateway"] | {"ack_timeout_s": PATIENCE_S}
        settings = Settings.model_validate(CONFIGURATION | {"gateway": patience})
        self.gateway = Gateway(settings, MemoryProducer(stall_after_s=AFTER_S, clock=self.clock))
        self.producer = self.gateway.producer
        self._door = DOORS[door]
        self._number = 0

    def send(self) -> "asyncio.Task[Answer]":
        self._number += 1
        return asyncio.create_task(_done(self._door(self.gateway, self._number)))

    def wait(self, seconds: float) -> None:
        for _ in range(round(2 * seconds)):
            self.clock.advance(0.5)
            self.producer.tick()

    async def begin(self) -> "asyncio.Task[Answer]":
        """Send what waits until nothing is let in any more."""
        await self.producer.start()
        self.producer.hold_acks()
        waiting = await self.waiting()
        self.wait(AFTER_S)
        return waiting

    async def waiting(self) -> "asyncio.Task[Answer]":
        """Send what is let in."""
        held_bytes = self.producer.buffered_bytes
        sent = self.send()
        await eventually_async(lambda: self.producer.buffered_bytes > held_bytes)
        return sent

    async def readiness(self) -> int:
        return (await self.gateway.call("GET", "/readyz")).status


async def _done(answer: Awaitable[Answer]) -> Answer:
    return await answer


@pytest.fixture(params=sorted(DOORS))
async def away(request: pytest.FixtureRequest, secret_environment: None) -> Away:  # noqa: ARG001 - a fixture cannot use usefixtures
    return Away(request.param)


async def test_a_request_is_answered_at_once_and_what_was_let_in_is_not_touched(away: Away) -> None:
    first = await away.begin()
    started_s = time.monotonic()

    answer = await away.send()

    assert time.monotonic() - started_s < PATIENCE_S / 2
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["reason"] == "log_unavailable"
    assert await away.readiness() == 503
    assert not first.done()
    away.producer.release_acks()
    assert (await first).status == 202


async def test_one_in_a_second_is_let_in_and_the_first_ack_opens_for_all(away: Away) -> None:
    first = await away.begin()
    away.wait(1)
    probe = await away.waiting()
    assert (await away.send()).status == 503

    away.producer.release_acks()

    answers = [await first, await probe, await away.send(), await away.send()]
    assert {answer.status for answer in answers} == {202}
    assert len(away.gateway.records) == 4
    assert await away.readiness() == 200


async def test_an_invocation_does_not_wait_for_results_that_cannot_be_read_either(
    secret_environment: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = Away("invoke")
    first = await away.begin()
    monkeypatch.setattr(away.gateway.results, "accepted", _unreachable)
    started_s = time.monotonic()

    assert (await away.send()).status == 503

    assert time.monotonic() - started_s < PATIENCE_S / 2
    away.producer.release_acks()
    await first


async def _unreachable(*_place: object, within_memory: bool = False) -> Accepted:
    assert within_memory
    message = "Kafka does not answer"
    raise LogUnavailable(message)


async def test_forgeries_are_no_probes(secret_environment: None) -> None:  # noqa: ARG001
    """A stranger who took every probe would keep the door closed for ever."""
    away = Away("webhook")
    first = await away.begin()
    away.wait(1)
    for _ in range(3):
        assert (await away.gateway.webhook(x_hub_signature_256="sha256=" + "0" * 64)).status == 401

    probe = await away.waiting()

    away.producer.release_acks()
    assert ((await first).status, (await probe).status) == (202, 202)


async def test_a_repetition_of_what_is_durable_is_still_told_so(secret_environment: None) -> None:  # noqa: ARG001
    away = Away("webhook")
    await away.producer.start()
    assert (await away.gateway.webhook(b"{}")).status == 202
    first = await away.begin()

    assert (await away.gateway.webhook(b"{}")).headers["penstock-duplicate"] == "true"
    assert (await away.send()).status == 503

    away.producer.release_acks()
    await first
