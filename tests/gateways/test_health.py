"""Liveness and readiness beyond the endpoints."""

import asyncio

from contracts.codec import Record
from gateways.health import Health
from gateways.ingress.admission import Admission
from producers.memory import MemoryProducer
from tests.support import FakeClock


async def test_kafka_is_probed_once_for_a_while() -> None:
    clock, producer = FakeClock(), MemoryProducer()
    await producer.start()
    health = Health(producer, Admission(100), results_alive=lambda: True, clock=clock)
    assert await health.unready() == []

    producer.set_unreachable()
    assert await health.unready() == []
    clock.advance(3)
    assert await health.unready() == ["log_unavailable"]


async def test_probes_do_not_pile_up() -> None:
    class Counting(MemoryProducer):
        probes = 0

        async def probe(self, timeout_s: float) -> None:
            assert timeout_s > 0
            self.probes += 1
            await asyncio.sleep(0)

    producer = Counting()
    health = Health(producer, Admission(100), results_alive=lambda: True)

    await asyncio.gather(*(health.unready() for _ in range(20)))

    assert producer.probes == 1


async def test_bodies_in_flight_count_before_they_are_refused() -> None:
    producer, admission = MemoryProducer(), Admission(100)
    await producer.start()
    health = Health(producer, admission, results_alive=lambda: True)

    admission.reserve(81)

    assert await health.unready() == ["buffer_full"]


async def test_a_full_buffer_has_to_empty_to_half_before_traffic_comes_back() -> None:
    producer, admission = MemoryProducer(), Admission(100)
    await producer.start()
    health = Health(producer, admission, results_alive=lambda: True)
    states = []
    for change in (70, 11, -20, -10, -1, 20):
        admission.reserve(change)
        states.append(await health.unready())

    # 70, 81, 61, 51, 50, 70 bytes of 100.
    assert states == [[], ["buffer_full"], ["buffer_full"], ["buffer_full"], [], []]


async def test_the_producers_buffer_has_to_empty_as_well() -> None:
    producer = MemoryProducer()
    await producer.start()
    health = Health(producer, Admission(200), results_alive=lambda: True)
    producer.hold_acks()
    waiting = asyncio.ensure_future(producer.produce(Record("t", b"k", b"v" * 100, [])))
    await asyncio.sleep(0)
    producer.set_full()
    assert await health.unready() == ["buffer_full"]

    producer.set_full(is_full=False)
    assert await health.unready() == ["buffer_full"]
    producer.release_acks()
    await waiting
    assert await health.unready() == []
